"""Figure 4 of the focal loss paper: the curves against a direct sort, the counted logits against a loop, the tool."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector import checkpoint
from detector.config.file import dump, load_config
from detector.data.coco import read_coco
from detector.data.descriptor import load_descriptor
from detector.data.loader import eval_loader
from detector.inference.detector import load
from detector.inference.loss_curves import LogitHistogram, count_logits, share_of_hardest
from detector.losses.assigners.max_iou import MaxIoUAssigner
from detector.losses.classification.focal import dense_focal_loss
from detector.models.build import build_model


def losses(logits: torch.Tensor, gamma: float) -> np.ndarray:
    """The focal loss of each logit as background, in float64, without alpha."""
    p = torch.sigmoid(logits.double())
    return (-(p**gamma) * torch.log1p(-p)).numpy()


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
def test_the_curve_is_that_of_the_sorted_losses(gamma):
    logits = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 3 - 4
    histogram = LogitHistogram()
    for part in logits.split(3000):
        histogram.add(part.reshape(-1, 4))
    fractions, shares = histogram.cumulative_loss(gamma)
    assert (fractions[0], shares[0], fractions[-1]) == (0, 0, 1) and shares[-1] == pytest.approx(1, abs=1e-12)
    ascending = np.sort(losses(logits, gamma))
    direct = np.cumsum(ascending) / ascending.sum()
    at = np.arange(1, len(direct) + 1) / len(direct)
    np.testing.assert_allclose(np.interp(at, fractions, shares), direct, atol=1e-3)
    for part, worst in ((0.01, 200), (0.1, 2000)):
        share = share_of_hardest((fractions, shares), part)
        assert share == pytest.approx(ascending[-worst:].sum() / ascending.sum(), abs=1e-3)


def test_equal_losses_have_a_straight_curve():
    histogram = LogitHistogram()
    histogram.add(torch.full((7,), -2.0))
    for part in (0.01, 0.1, 0.5):
        assert share_of_hardest(histogram.cumulative_loss(2), part) == pytest.approx(part)


def test_extreme_logits_are_counted_at_the_ends():
    histogram = LogitHistogram()
    histogram.add(torch.tensor([-1e9, -100.0, 100.0, 1e9], dtype=torch.float32))
    histogram.add(torch.tensor([-100.0, 100.0], dtype=torch.bfloat16))
    assert (histogram.counts[0], histogram.counts[-1], histogram.counts.sum()) == (3, 3, 6)
    assert np.isfinite(histogram.cumulative_loss(2)[1]).all()


@pytest.fixture
def run(tiny_config, tmp_path) -> Path:
    """A run directory with an untrained detector in it."""
    config = load_config(tiny_config, ["model.backbone.name=resnet18"])  # one whose random logits differ
    torch.manual_seed(0)
    state = {"class_names": ["dark", "light"], "category_ids": [3, 7], "num_images": 6}
    model = build_model(config.model, 2, pretrained=False).state_dict()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(dump(config))
    checkpoint.save(tmp_path / "run/checkpoints/best.pt", {"config": config.model_dump(), **state, "model": model})
    return tmp_path / "run"


def test_foreground_and_background_are_the_terms_of_the_loss(run, tiny_dataset):
    """The sums of the counted logits' losses are the loss's own, split by what the assigner says."""
    detector = load(run, device="cpu")
    foreground, background = count_logits(detector, "val")
    data = read_coco(load_descriptor(tiny_dataset).split("val"))
    sums, counts = np.zeros(2), np.zeros(2, int)
    for images, targets in eval_loader(data, image_size=64, batch_size=1, workers=0):
        with torch.no_grad():
            outputs = detector.model(images, [t["size"] for t in targets])
        classes = MaxIoUAssigner()(outputs, targets).classes[0]
        for anchor, c in zip(outputs["logits"][0], classes, strict=True):
            if c >= 0:
                sums[0] += dense_focal_loss(anchor[c, None, None], torch.tensor([0]), alpha=None, gamma=1.0)
                counts[0] += 1
            elif c == -1:
                sums[1] += dense_focal_loss(anchor[None], torch.tensor([-1]), alpha=None, gamma=1.0)
                counts[1] += 2
    for histogram, total, count in zip((foreground, background), sums, counts, strict=True):
        assert histogram.counts.sum() == count > 0
        centres = torch.from_numpy((np.arange(len(histogram.counts)) + 0.5) / 128 - 32)
        assert (histogram.counts * losses(centres, 1)).sum() == pytest.approx(total, rel=1e-3)


def test_tool_draws_and_tells_the_shares(succeeds, run, tmp_path):
    out = succeeds("loss_curves", run)
    picture = run / "eval/val/loss_curves.png"
    assert Image.open(picture).size == (1200, 480) and str(picture) in out
    table = [line.split() for line in out.splitlines() if line.endswith("%")]
    assert [row[0] for row in table] == ["gamma", "0", "0.5", "1", "2"]
    shares = np.array([[float(cell.rstrip("%")) for cell in row[1:]] for row in table[1:]])
    assert (np.diff(shares, axis=0) >= 0).all()  # the larger gamma, the more of the loss is in the hard ones
    assert (shares[:, 1] > shares[:, 0]).all() and (shares[0] > (1, 10)).all()
    other = tmp_path / "new" / "figure.pdf"
    shutil.copy(run / "checkpoints/best.pt", tmp_path / "lone.pt")
    assert " 3 " in succeeds("loss_curves", tmp_path / "lone.pt", "--split", "train", "--output", other, "--gamma", "3")
    assert other.read_bytes()[:4] == b"%PDF"


def test_tool_says_what_is_wrong(fails, run, tmp_path):
    assert "no checkpoints" in fails("loss_curves", tmp_path)
    assert "test" in fails("loss_curves", run, "--split", "test")
    assert "--gamma" in fails("loss_curves", run, "--gamma", "-1")
    assert "a.docx" in fails("loss_curves", run, "--output", "a.docx")
    annotations = tmp_path / "val.json"
    annotations.write_text(annotations.read_text().replace('"light"', '"bright"'))
    assert "light" in fails("loss_curves", run)
