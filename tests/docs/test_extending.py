"""What docs/extending.md adds, trains."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from detector.losses.assigners import ASSIGNERS
from detector.losses.classification import CLASSIFICATION_LOSSES

sys.path.append(str(Path(__file__).parent))  # not a package: tests are collected with --import-mode=importlib
markdown = importlib.import_module("markdown_pages")


@pytest.fixture
def page(monkeypatch) -> dict:
    """The names that the snippets of the page define, run from top to bottom; afterwards the tables are as before."""
    for table in (CLASSIFICATION_LOSSES, ASSIGNERS):
        for name in ("poly_focal", "nearest"):
            monkeypatch.delitem(table, name, raising=False)  # and so it is removed in the end
    before = [dict(table) for table in (CLASSIFICATION_LOSSES, ASSIGNERS)]
    names: dict = {}
    for block in markdown.blocks(markdown.ROOT / "docs" / "extending.md", "python"):
        exec(compile(block.text, "docs/extending.md", "exec"), names)
    yield names
    for table, entries in zip((CLASSIFICATION_LOSSES, ASSIGNERS), before, strict=True):
        table.clear()
        table.update(entries)


def test_the_loss_and_the_assigner_train(page, succeeds, fails, tiny_config):
    before = "loss.classification=poly_focal", "loss.assigner.name=nearest"
    out = succeeds("train", tiny_config, *before, "train.epochs=1")
    assert "Average Precision" in out
    assert "did you mean 'poly_focal'?" in fails("train", tiny_config, "--overwrite", "loss.classification=poly_focall")


def test_the_loss_is_what_the_page_says(page):
    logits, targets = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    each = 0.25 * 0.693147 + 0.125  # p_t = 1/2
    torch.testing.assert_close(page["poly_focal"](logits, targets), torch.tensor([[each, each]]))


def test_the_assigner_takes_the_nearest_anchors(page):
    anchors = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 0, 40, 40.0]])
    targets = [
        {"boxes": torch.tensor([[0, 0, 10, 10.0], [2, 0, 12, 10]]), "labels": torch.tensor([3, 5])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    found = page["NearestAssigner"](count=1)({"anchors": anchors}, targets)
    assert found.classes.tolist() == [[3, 5, -1, -1], [-1, -1, -1, -1]]
    assert found.objects[0, :2].tolist() == [0, 1]
