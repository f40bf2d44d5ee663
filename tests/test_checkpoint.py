"""What `model.weights` may name, and what a training that starts from it gets."""

import signal

import pytest
import torch
import torchvision

from detector import checkpoint
from detector.config import load_config
from detector.inference import load
from detector.models.build import build_model
from detector.utils.errors import InputError


@pytest.fixture
def trained(tiny_config, tmp_path):
    """A run directory with a best checkpoint of the classes dark and grey, and its model."""
    config = load_config(tiny_config)
    model = build_model(config.model, 2)
    state = {"model": model.state_dict(), "config": config.model_dump(), "class_names": ["dark", "grey"]}
    checkpoint.save(tmp_path / "run" / "checkpoints" / "best.pt", state | {"category_ids": [3, 9]})
    return model


def test_a_run_directory_or_a_checkpoint(trained, tiny_config, tmp_path):
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    for source in (tmp_path / "run", best):
        weights = checkpoint.read_detector(str(source))
        assert weights.source == str(best) and weights.description == "a checkpoint of this project, 2 classes"
        assert weights.category_ids == {"dark": 3, "grey": 9}
    model = build_model(load_config(tiny_config).model, 2)
    found = checkpoint.start_from(model, str(tmp_path / "run"), ["light", "DARK"])
    assert found.lines()[0] == f"model.weights {best}: a checkpoint of this project, 2 classes"
    assert (found.kept, found.new, found.dropped) == ({"DARK": "dark"}, ["light"], ["grey"])
    assert found.warnings == []
    found = checkpoint.start_from(model, str(tmp_path / "run"), ["light", "dark"], {"light": "grey"})
    assert found.kept == {"light": "grey", "dark": "dark"}


def test_anchors_that_are_not_the_checkpoints(trained, tiny_config, tmp_path):
    model = build_model(load_config(tiny_config, ["model.anchors.base_size=8"]).model, 2)
    (warning,) = checkpoint.start_from(model, str(tmp_path / "run"), ["dark", "grey"]).warnings
    assert "its anchors were {'base_size': 16" in warning


@pytest.mark.parametrize("name", ["plain.pth", "wrapped.pth", "odd.name"])
def test_a_file_in_torchvisions_layout(name, trained, tmp_path):
    state = trained.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if name == "wrapped.pth" else state, tmp_path / name)
    weights = checkpoint.read_detector(str(tmp_path / name))
    assert weights.description == "torchvision's RetinaNet layout, 2 classes of unknown names"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/w.pth", "nowhere/w.pth: no such weights file"),
        ("model_final.pkl", "model_final.pkl: no such weights file"),
        ("RetinaNet", "unknown detector weights 'RetinaNet'; valid: RetinaNet_ResNet50_FPN_Weights.COCO_V1"),
        (".", "no checkpoints/best.pt"),
    ],
)
def test_nothing_to_start_from(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        checkpoint.read_detector(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state["model"].pop("head.classification_head.cls_logits.bias"),
            "it has no head.*cls_logits.bias",
        ),
        (lambda state: state.update(format=99), "format 99"),
    ],
)
def test_a_damaged_checkpoint(change, message, trained, tmp_path):
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    state = torch.load(best, weights_only=True)
    change(state)
    torch.save(state, best)
    with pytest.raises(InputError, match=message):
        checkpoint.read_detector(str(best))


def test_signals_wait_for_a_checkpoint_to_be_written(tmp_path, monkeypatch):
    def save(state, file):
        signal.raise_signal(signal.SIGINT)
        real(state, file)

    real = torch.save
    monkeypatch.setattr(torch, "save", save)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path / "w.pt", {"answer": 42})
    finally:
        signal.signal(signal.SIGINT, before)
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]
    assert torch.load(tmp_path / "w.pt", weights_only=True)["answer"] == 42


def test_a_config_of_weights_without_a_detector(tiny_config, tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    with pytest.raises(InputError, match=r"r18\.pth: a classification network.*: no detector to use"):
        load(tiny_config, overrides=[f"model.weights={tmp_path / 'r18.pth'}"])


def test_a_config_of_weights_with_unknown_names(trained, tiny_config, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "own.pth")
    overrides = [f"model.weights={tmp_path / 'own.pth'}"]
    detect = load(tiny_config, overrides=overrides)
    assert detect.class_names == ["dark", "light"]  # the dataset's
    state = detect.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in trained.state_dict().items())
    with pytest.raises(InputError, match="another architecture"):
        load(tiny_config, overrides=[*overrides, "model.fpn.channels=24"])
