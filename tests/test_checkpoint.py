"""What `model.weights` may name and what a training that starts from it gets; checkpoint files and their faults."""

import errno
import resource
import signal
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision

from detector import checkpoint
from detector.config.file import load_config
from detector.inference.detector import load
from detector.models.build import build_model
from detector.models.weights.transfer import transfer
from detector.utils import digest as sealed
from detector.utils.digest import check_digest
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
    weights = checkpoint.read_detector(str(tmp_path / "run"))
    found = transfer(model, weights, ["light", "DARK"])
    assert found.lines()[0] == f"model.weights {best}: a checkpoint of this project, 2 classes"
    assert (found.kept, found.new, found.dropped) == ({"DARK": "dark"}, ["light"], ["grey"])
    assert found.warnings == []
    found = transfer(model, weights, ["light", "dark"], {"light": "grey"})
    assert found.kept == {"light": "grey", "dark": "dark"}


def test_anchors_that_are_not_the_checkpoints(trained, tiny_config, tmp_path):
    model = build_model(load_config(tiny_config, ["model.anchors.base_size=8"]).model, 2)
    (warning,) = transfer(model, checkpoint.read_detector(str(tmp_path / "run")), ["dark", "grey"]).warnings
    assert "it was trained with anchors {'base_size': 16" in warning


def test_the_rule_of_the_anchors_that_weights_were_trained_with(trained, tmp_path, monkeypatch):
    """As model.anchors.rule auto resolves to it; a name of torchvision's needs no download for that."""
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", None)
    torch.save(trained.state_dict(), tmp_path / "own.pth")
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    rules = {"own.pth": "torchvision", "r18.pth": "exact", "run": "exact"}
    assert {name: checkpoint.anchor_rule(str(tmp_path / name)) for name in rules} == rules
    assert checkpoint.anchor_rule(None) == "exact"
    assert checkpoint.anchor_rule("RetinaNet_ResNet50_FPN_Weights.COCO_V1") == "torchvision"
    state = checkpoint.load(best)
    state["config"]["model"]["anchors"]["rule"] = "torchvision"
    checkpoint.save(best, state)
    assert checkpoint.anchor_rule(str(tmp_path / "run")) == "torchvision"
    for overrides in ([], ["model.anchors.rule=auto"]):
        assert load(best, device="cpu", overrides=overrides).model.anchors.rule == "torchvision"


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
        ("RetinaNet", "RetinaNet"),
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
        (lambda state: state.update(format=4), "checkpoint format 4; this version reads format 5; train again"),
        (lambda state: state.update(class_names=["dark", "\x1b[2J"]), "class_names and category_ids"),
        (lambda state: state.update(class_names="ab"), "class_names and category_ids"),
        (lambda state: state.update(category_ids=[3]), "class_names and category_ids"),
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
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "w.pt", {"answer": 42})
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]
    assert torch.load(tmp_path / "w.pt", weights_only=True)["answer"] == 42


def test_a_config_of_weights_without_a_detector(tiny_config, tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    with pytest.raises(InputError, match=r"r18\.pth: a classification network.*: it is no detector to use"):
        load(tiny_config, overrides=[f"model.weights={tmp_path / 'r18.pth'}"])


def test_a_config_of_weights_with_unknown_names(trained, tiny_config, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "own.pth")
    overrides = [f"model.weights={tmp_path / 'own.pth'}"]
    detect = load(tiny_config, overrides=overrides)
    assert detect.class_names == ["dark", "light"]  # the dataset's
    assert detect.model.anchors.rule == detect.config.model.anchors.rule == "torchvision"
    state = detect.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in trained.state_dict().items())
    with pytest.raises(InputError, match="another architecture"):
        load(tiny_config, overrides=[*overrides, "model.neck.channels=24"])


CONTENTS = {"model": {}, "config": {"model": {}}, "class_names": ["a"], "category_ids": [1]}


def saved(path, **more) -> Path:
    checkpoint.save(path, {**CONTENTS, **more}, keep=2)
    return path


def test_any_damage_is_noticed(tmp_path):
    file = saved(tmp_path / "last.pt", model={"weight": torch.arange(20.0)})
    whole = file.read_bytes()
    assert torch.load(file, weights_only=True)["model"]["weight"][19] == 19  # by torch alone
    assert zipfile.ZipFile(file).comment.startswith(b"sha256:") and zipfile.ZipFile(file).testzip() is None
    for offset in (1, 2, *range(0, len(whole), 3)):
        file.write_bytes(whole[:offset])
        with pytest.raises(InputError, match=r"last\.pt: (damaged|not readable as weights: damaged)"):
            checkpoint.load(file)
        file.write_bytes(whole[:offset] + bytes([whole[offset] ^ 16]) + whole[offset + 1 :])
        with pytest.raises(InputError, match=r"last\.pt: (damaged|not readable as weights: damaged)"):
            checkpoint.load(file)
    file.write_bytes(b"PK" + bytes(100))  # as safetensors of 19,280 bytes of names begin
    check_digest(file)
    torch.save({"format": checkpoint.FORMAT, **CONTENTS}, file)  # edited and saved by torch alone: it has no digest
    assert checkpoint.load(file)["class_names"] == ["a"]


def test_the_newest_that_is_not_damaged_is_used(tmp_path, capsys):
    last = tmp_path / "checkpoints" / "last.pt"
    for number in range(5):
        saved(last, category_ids=[number])
    assert [file.name for file in checkpoint.history(last)] == ["last.pt", "last.1.pt", "last.2.pt"]
    assert [checkpoint.load(file)["category_ids"] for file in checkpoint.history(last)] == [[4], [3], [2]]
    for file in (last, last.with_name("last.1.pt")):
        file.write_bytes(file.read_bytes()[:-100])
    state, file, problems = checkpoint.load_newest(last)
    assert (state["category_ids"], file.name) == ([2], "last.2.pt")
    assert [str(problem).split("/")[-1] for problem in problems] == [
        f"{name}: damaged: it was cut short" for name in ("last.pt", "last.1.pt")
    ]
    assert checkpoint.find(tmp_path).name == "last.2.pt"
    assert "last.pt: damaged: it was cut short; using the next best checkpoint" in capsys.readouterr().out
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"last\.pt: damaged"):
        checkpoint.load_newest(last)
    saved(last.with_name("best.pt"))
    assert checkpoint.find(tmp_path).name == "best.pt"


def test_one_that_the_disk_does_not_give_back_is_passed_over(tmp_path, monkeypatch):
    def digest(file, size):
        if file.name.endswith("last.pt"):
            raise OSError(errno.EIO, "Input/output error")
        return real(file, size)

    last = tmp_path / "checkpoints" / "last.pt"
    for number in range(2):
        saved(last, category_ids=[number])
    real = sealed._digest
    monkeypatch.setattr(sealed, "_digest", digest)
    state, _, (problem,) = checkpoint.load_newest(last)
    assert state["category_ids"] == [0] and str(problem).endswith("last.pt: cannot be read (Input/output error)")
    assert checkpoint.find(tmp_path).name == "last.1.pt"


def test_a_full_disk_keeps_what_is_there(tmp_path):
    file = saved(tmp_path / "last.pt")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (10, 1000, 100_000, 399_999):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                saved(file, model={"weight": torch.zeros(100_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]  # the room is free again
        assert checkpoint.load(file)["model"] == {}


def test_fewer_to_keep_leaves_no_older_ones(trained, tmp_path):
    path = tmp_path / "last.pt"
    state = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    for _ in range(3):
        checkpoint.save(path, state, keep=2)
    assert [file.name for file in checkpoint.history(path)] == ["last.pt", "last.1.pt", "last.2.pt"]
    checkpoint.save(path, state, keep=1)
    assert [file.name for file in checkpoint.history(path)] == ["last.pt", "last.1.pt"]


@pytest.mark.parametrize("change", [{"model": 5}, {"model": {"a": "x"}}, {"class_counts": "x"}, {"deployment": 7}])
def test_contents_of_other_kinds(change, trained, tmp_path):
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    torch.save({**torch.load(best, weights_only=True), **change}, best)
    with pytest.raises(InputError, match=r"best\.pt"):
        load(best, device="cpu")
