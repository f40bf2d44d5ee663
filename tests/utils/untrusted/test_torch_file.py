"""Weights files made to harm: each is refused in one line, soon, and before it has taken memory."""

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

from detector.models.state_dict import read_state_dict
from detector.utils.errors import InputError
from detector.utils.untrusted.torch_file import read_torch_file


def one_line(error) -> str:
    text = str(error.value)
    assert len(text) <= 1500 and "\n" not in text and "\x1b" not in text
    return text


def as_zip_bomb(path) -> None:
    """A checkpoint whose zeros are compressed."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(5_000_000)}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry))


def with_member(path, name: str, method: int = zipfile.ZIP_STORED) -> None:
    """A sound checkpoint, to which a member is added, or a second time."""
    torch.save({"a": torch.zeros(100)}, path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # that it stands twice
        archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/{name}", b"\x80\x02}q\x00.", method)


class Call:
    """Pickled, it is the call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def as_safetensors(path, header: dict, length: int | None = None) -> None:
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
def test_weights(tmp_path, write, name, said):
    write(tmp_path / name)
    with pytest.raises(InputError) as error:
        read_state_dict(tmp_path / name)
    assert said in one_line(error)


@pytest.mark.parametrize(
    "twice", [lambda inner: [inner, inner], lambda inner: (inner, inner), lambda inner: {"a": inner, "b": inner},
              lambda inner: argparse.Namespace(a=inner, b=inner)],
)  # fmt: skip
def test_values_that_stand_in_one_another(tmp_path, twice):
    """A few hundred bytes, of which NumPy would make 10^18 numbers and repr as much text."""
    value = 0.5
    for _ in range(60):
        value = twice(value)
    torch.save({"a": value}, tmp_path / "a.pt")
    with pytest.raises(InputError) as error:
        read_torch_file(tmp_path / "a.pt")
    assert "refused, as its values are nested in one another more often than" in one_line(error)

    inside = []
    inside.append(twice(inside))
    torch.save({"a": inside}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="not readable as weights"):
        read_torch_file(tmp_path / "a.pt")


def as_key(path, is_archive: bool) -> None:
    """A dict whose key is 60 tuples, each of which holds the one before twice."""
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
def test_a_key_whose_hash_takes_for_ever(tmp_path, is_archive):
    as_key(tmp_path / "a.pt", is_archive)
    with pytest.raises(InputError, match="refused, as its values are nested in one another more often than"):
        read_torch_file(tmp_path / "a.pt")


def test_sound_weights_pass(tmp_path):
    state = {"a": torch.arange(6.0).reshape(2, 3).t().contiguous(), "steps": torch.tensor(3)}
    torch.save(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pt", "old.pt", "a.safetensors"):
        assert read_state_dict(tmp_path / name).keys() == state.keys()


@pytest.mark.parametrize("zipped", [True, False])
def test_text_that_reads_like_code_is_text(tmp_path, zipped):
    contents = {"state_dict": {"w": torch.ones(2)}, "config": "- Resize\n- ToTensor\n", "optimizer": {0: (1, [2.5])}}
    torch.save(contents, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert read_torch_file(tmp_path / "a.pt")["config"] == contents["config"]
