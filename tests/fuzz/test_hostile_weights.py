"""Hostile weights and checkpoints are refused in one line, without running their code and before they take memory."""

import argparse
import codecs
import io
import json
import os
import pickle
import struct
import warnings
import zipfile

import pytest
import safetensors.torch
import torch

from detector import checkpoint
from detector.config.schema import Config
from detector.inference import detector as inference
from detector.models.build import build_model
from detector.models.state_dict import read_state_dict
from detector.training import replay
from detector.utils.untrusted.torch_file import read_torch_file

NESTED = "refused, as its values are nested in one another more often than the file has bytes"


def as_zip_bomb(path) -> None:
    """Write a checkpoint whose zeros are compressed."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(5_000_000)}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry))


def with_member(path, name: str, method: int = zipfile.ZIP_STORED) -> None:
    """Write a sound checkpoint with one more member, which may have the name of another."""
    torch.save({"a": torch.zeros(100)}, path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # zipfile warns about equal names
        archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/{name}", b"\x80\x02}q\x00.", method)


class Call:
    """Its pickle is the call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def as_safetensors(path, header: dict, length: int | None = None) -> None:
    """Write a safetensors file of 4 bytes of data; `length`: what it claims as the length of its header."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + b"\0" * 4)


@pytest.mark.parametrize(
    ("write", "name", "said"),
    [
        (as_zip_bomb, "a.pt", "MB that unpack to 20.0 MB; refused"),
        (lambda p: with_member(p, "data.pkl"), "a.pt", "damaged, cut short"),
        (lambda p: with_member(p, "DATA.pkl"), "a.pt", "damaged, cut short"),
        (lambda p: with_member(p, "x", zipfile.ZIP_DEFLATED), "a.pt", "torch.save does not compress"),
        (lambda p: torch.save(Call(bytearray, 10**10), p), "a.pt", "it names `__builtin__ bytearray`"),
        (lambda p: torch.save(Call(torch.FloatTensor, 10**10), p), "a.pt", "it names `torch FloatTensor`"),
        (lambda p: torch.save(Call(torch.UntypedStorage, 10**10), p), "a.pt", "it names `torch.storage Untyped"),
        (lambda p: torch.save(Call(codecs.encode, b"x", "hex"), p), "a.pt", "it names `_codecs encode`, which"),
        (
            lambda p: torch.save(Call(bytearray, 10**10), p, _use_new_zipfile_serialization=False),
            "a.pt", "it names `__builtin__ bytearray`",
        ),
        (lambda p: torch.save(Call(os.system, "exit 1"), p), "a.pt", "not a file of plain tensors; refused"),
        (lambda p: p.write_bytes(b""), "a.pt", "damaged, cut short, or a file of another kind"),
        (lambda p: torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, p), "a.pt", "tensor 'a' is no plain array"),
        (lambda p: torch.save({"a": torch.empty(10**6, 10**6, device="meta")}, p), "a.pt", "tensor 'a' is no plain"),
        (lambda p: torch.save({"a": torch.zeros(3).to_sparse()}, p), "a.pt", "tensor 'a' is no plain array"),
        (lambda p: torch.save({"\x1b[1m": torch.zeros(3, dtype=torch.cfloat)}, p), "a.pt", r"tensor '\x1b[1m' is no"),
        (lambda p: as_safetensors(p, {}, 2**62), "a.safetensors", "header too large"),
        (lambda p: as_safetensors(p, {}, 10**8), "a.safetensors", "invalid header length"),
        (
            lambda p: as_safetensors(p, {"a": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 4]}}),
            "a.safetensors", "invalid shape",
        ),
    ],
)  # fmt: skip
def test_weights(tmp_path, refusal, write, name, said):
    write(tmp_path / name)
    assert said in refusal(lambda: read_state_dict(tmp_path / name))


@pytest.mark.parametrize(
    "twice", [lambda inner: [inner, inner], lambda inner: (inner, inner), lambda inner: {"a": inner, "b": inner},
              lambda inner: argparse.Namespace(a=inner, b=inner)],
)  # fmt: skip
def test_values_nested_in_one_another(tmp_path, refusal, twice):
    """A file of a few hundred bytes from which NumPy would make 10^18 numbers."""
    value = 0.5
    for _ in range(60):
        value = twice(value)
    torch.save({"a": value}, tmp_path / "a.pt")
    assert NESTED in refusal(lambda: read_torch_file(tmp_path / "a.pt"))

    inside = []
    inside.append(twice(inside))
    torch.save({"a": inside}, tmp_path / "a.pt")
    assert "not readable as weights" in refusal(lambda: read_torch_file(tmp_path / "a.pt"))


def as_key(path, is_archive: bool) -> None:
    """Write a dict whose key is 60 nested tuples, each of which holds the one before twice."""
    key = b"K\x01" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    pickled = b"\x80\x02}" + key + b"K\x01s."
    torch.save({"a": 1}, path, _use_new_zipfile_serialization=is_archive)
    if not is_archive:
        path.write_bytes(path.read_bytes().replace(pickle.dumps({"a": 1}, 2), pickled))
        return
    buffer = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w") as archive:
        for entry in whole.infolist():
            archive.writestr(entry.filename, pickled if entry.filename.endswith(".pkl") else whole.read(entry))


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_key_whose_hash_takes_for_ever(tmp_path, refusal, is_archive):
    as_key(tmp_path / "a.pt", is_archive)
    assert NESTED in refusal(lambda: read_torch_file(tmp_path / "a.pt"))


def settings(backbone: str) -> dict:
    small = {"backbone": {"name": backbone, "weights": None, "norm": "batch"}, "neck": {"channels": 8},
             "head": {"depth": 1, "width": 8}, "anchors": {"scales": 1, "ratios": [1.0]}}  # fmt: skip
    return {"data": {"dataset": "d.yaml", "image_size": 64}, "model": small}


def bad_batch(backbone: str = "resnet18", **changes) -> dict:
    """What a training leaves after a bad step, without the criterion's state."""
    model = build_model(Config.model_validate(settings("resnet18")).model, 2, pretrained=False)
    return {
        "replay": replay.FORMAT, "config": settings(backbone), "class_names": ["a", "b"], "class_counts": [1, 2],
        "frozen": [], "epoch": 0, "step": 3, "autocast": None, "split": 1, "model": model.state_dict(), "criterion": {},
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


def test_sound_weights_pass(tmp_path):
    state = {"a": torch.arange(6.0).reshape(2, 3).t().contiguous(), "steps": torch.tensor(3)}
    torch.save(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pt", "old.pt", "a.safetensors"):
        assert read_state_dict(tmp_path / name).keys() == state.keys()
