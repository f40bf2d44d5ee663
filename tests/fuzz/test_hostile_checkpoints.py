"""Checkpoints and bad batches that ask for more than they hold are refused in one line, before anything is built."""

import pytest
import torch

from detector import checkpoint
from detector.config.schema import Config
from detector.inference import detector as inference
from detector.models.build import build_model
from detector.training import replay


def settings(backbone: str) -> dict:
    small = {"backbone": {"name": backbone, "weights": None, "norm": "batch"}, "neck": {"channels": 8},
             "head": {"depth": 1, "width": 8}, "anchors": {"scales": 1, "ratios": [1.0]}}  # fmt: skip
    return {"data": {"dataset": "d.yaml", "image_size": 64}, "model": small}


def bad_batch(backbone: str = "resnet18", **changes) -> dict:
    """What a training leaves after a bad step, without the criterion's state."""
    model = build_model(Config.model_validate(settings("resnet18")).model, 2, pretrained=False)
    return {
        "replay": replay.FORMAT, "config": settings(backbone), "class_names": ["a", "b"], "class_counts": [1, 2],
        "frozen": [], "epoch": 0, "step": 3, "autocast": None, "micro_batches": 1, "model": model.state_dict(),
        "criterion": {},
        "parts": ["loss_box"], "image_ids": [], "batches": [], "random": torch.get_rng_state(), "random_cuda": None,
    } | changes  # fmt: skip


@pytest.mark.parametrize("key", ["frozen", "class_counts", "parts"])
def test_a_bad_batch_with_a_tensor_of_10_to_the_12_in_place_of_a_list(tmp_path, refusal, monkeypatch, key):
    monkeypatch.setattr(replay, "build_model", lambda *args, **kwargs: pytest.fail("it got that far"))
    torch.save(bad_batch(**{key: torch.zeros(1).expand(10**6, 10**6)}), tmp_path / "a.pt")
    assert "damaged: not a bad batch as this version writes it" in refusal(lambda: replay.replay(tmp_path / "a.pt"))


@pytest.mark.parametrize("backbone", ["resnet101", "timm/convnextv2_huge"])
def test_a_model_larger_than_its_checkpoint_is_not_built(tmp_path, refusal, monkeypatch, backbone):
    if backbone.startswith("timm/"):
        pytest.importorskip("timm")
    state = bad_batch(backbone, model={"a": torch.zeros(10**5)})
    torch.save(state, tmp_path / "bad.pt")
    torch.save({"format": checkpoint.FORMAT, "category_ids": [1, 2], **state}, tmp_path / "a.pt")
    monkeypatch.setattr(replay, "build_model", None)
    monkeypatch.setattr(inference, "build_model", None)
    for use in (lambda: replay.replay(tmp_path / "bad.pt"), lambda: inference.load(tmp_path / "a.pt", device="cpu")):
        assert "numbers; its tensors have 400000 bytes" in refusal(use)
