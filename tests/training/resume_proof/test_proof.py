"""tools/verify_resume.py, with trainings that end at once (test_processes.py has real ones)."""

import json
import random

import pytest

from detector.config.file import load_config
from detector.training.resume_proof import proof
from detector.training.resume_proof.processes import Interruptions


@pytest.fixture
def trained(monkeypatch):
    """The configurations of the trainings, which write nothing: the whole one, then the interrupted one."""
    configs = []

    def uninterrupted(config, log):
        configs.append(load_config(config))
        return 1.0

    def interrupted(config, log, **options):
        configs.append(load_config(config))
        return Interruptions(kills=options["kills"], steps=(1, 4))

    monkeypatch.setattr(proof, "train_uninterrupted", uninterrupted)
    monkeypatch.setattr(proof, "train_interrupted", interrupted)
    return configs


def test_runs_that_are_the_same(succeeds, tiny_config, monkeypatch, trained):
    monkeypatch.setattr(proof, "differences", lambda first, second: [])
    out = succeeds("verify_resume", tiny_config, "--steps", 4, "--kills", 2, "train.batch_size=auto")
    assert "killed 2 times" in out and "the same: weights" in out
    whole, parts = trained
    assert (whole.train.save_every, parts.train.save_every) == (None, 1)
    assert whole.train.deterministic and parts.train.log_every == 1
    assert (whole.train.batch_size, whole.train.epochs) == (16, 4)


def test_runs_that_differ(tool, tiny_config, monkeypatch, trained):
    monkeypatch.setattr(proof, "differences", lambda first, second: [f"line {i}" for i in range(30)])
    code, out, _ = tool("verify_resume", tiny_config, "--steps", 2)
    assert code == 1 and "NOT THE SAME: 30 differences" in out and out.count("differs: line") == proof.MOST_PRINTED


def test_a_few_images_show_every_category(tiny_dataset):
    coco = json.loads((tiny_dataset.parent / "train.json").read_text())
    for seed in range(5):
        subset = proof._subset(coco, 2, random.Random(seed))
        assert len(subset["images"]) == 2
        assert {annotation["category_id"] for annotation in subset["annotations"]} == {3, 7}
        assert {annotation["image_id"] for annotation in subset["annotations"]} <= {i["id"] for i in subset["images"]}
