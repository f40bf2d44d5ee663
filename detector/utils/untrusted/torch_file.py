"""Reading files of torch.save that may come from anywhere: no code in them runs, and they take no more memory than
they are long.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from detector.utils.digest import ARCHIVE
from detector.utils.errors import InputError
from detector.utils.nearest import nearest_file
from detector.utils.untrusted.pickles import max_values_and_names

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
VALUES_ALLOWED = 1_000_000  # nested values, even in a file of fewer bytes
PICKLES = 5  # one after the other in a file of torch before 1.6

# Functions that torch lets a pickle call and that make any amount of memory out of a few bytes. torch.save uses none of
# them for tensors, numbers and text.
GROWING = ("builtins bytearray", "__builtin__ bytearray", "_codecs encode")
GROWING_OF_TORCH = ("Tensor", "UntypedStorage", "TypedStorage")  # ends of torch's names

NOT_READABLE = "not readable as weights: damaged, cut short, or a file of another kind"
REPEATING = "refused, as its values are nested in one another more often than the file has bytes"


def read_torch_file(path: str | Path) -> Any:
    """What torch.save wrote, tensors on the CPU. Pickled code is never run. Raises InputError."""
    path = Path(path)
    try:
        _check_before_reading(path)
        # torchvision's reference scripts save their command line, a Namespace of plain data, beside the weights
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickles
            contents = torch.load(path, map_location="cpu", weights_only=True)
        if _count_values(contents, {}) > _max_values(path):
            raise InputError(f"{path}: {REPEATING}")
        return contents
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {nearest_file(path)}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, not a file") from None
    except Exception as problem:  # reading bytes that are no pickle can raise anything
        if path.suffix == ".pkl":
            raise InputError(
                f"{path}: a pickle (detectron2 publishes such), refused, as reading it could run code; where you trust "
                f"it, re-save its tensors with torch.save({{name: torch.as_tensor(array), ...}}, 'weights.pth')"
            ) from None
        if isinstance(problem, InputError):
            raise
        if isinstance(problem, pickle.UnpicklingError):
            raise InputError(
                f"{path}: not a file of plain tensors; refused, as reading anything else could run code"
            ) from None
        raise InputError(f"{path}: {NOT_READABLE}") from None


def has_all_values(tensor: Tensor) -> bool:
    """Whether it is a plain CPU tensor with a value in memory for each element.

    A view may repeat one value 10^12 times, and a meta tensor has none.
    """
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.dtype in DTYPES
    return plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def is_parameter(name: object, value: object) -> bool:
    """Whether name and value can be an entry of a state dict: text, and a tensor with all of its values."""
    return isinstance(name, str) and isinstance(value, Tensor) and has_all_values(value)


def _count_values(value: object, known: dict[int, int]) -> int:
    """The number of values nested in `value`; one that stands in several places counts at each.

    In an honest file each takes a byte or more, but 60 lists that each hold the next one twice are 2^60.
    known: id → number, of what was counted before. Raises RecursionError for a value that contains itself.
    """
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if not isinstance(value, (dict, list, tuple, set)):
        return 1
    if id(value) not in known:
        children: Iterable[object] = chain(value, value.values()) if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count_values(child, known) for child in children)
    return known[id(value)]


def _max_values(path: Path) -> int:
    """The number of nested values, counted as in `_count_values`, that a file may have."""
    return max(path.stat().st_size, VALUES_ALLOWED)


def _check_before_reading(path: Path) -> None:
    """Raises InputError for a file that would take more memory than it is long.

    torch.save neither compresses nor calls functions that make much out of little.
    """
    try:
        with path.open("rb") as file:
            is_archive = file.read(len(ARCHIVE)) == ARCHIVE
            file.seek(0)
            pickles = _pickles_of_archive(path, file) if is_archive else _first_pickles(file)
            most, names = max_values_and_names(pickles, _max_values(path) + 1)
    except OSError:
        return  # torch.load raises it again
    except InputError:
        raise
    except (ValueError, IndexError, KeyError, TypeError):
        raise InputError(f"{path}: {NOT_READABLE}") from None
    growing = sorted(name for name in names if _grows(name))
    if growing:
        raise InputError(f"{path}: refused, as it names `{growing[0]}`, which could take any amount of memory")
    if most > _max_values(path):
        raise InputError(f"{path}: {REPEATING}")


def _grows(name: str) -> bool:
    """name: "module function", as in a pickle."""
    return name in GROWING or (name.startswith("torch") and name.endswith(GROWING_OF_TORCH))


def _first_pickles(file: BinaryIO) -> Iterator[BinaryIO]:
    """The pickles of a file of torch before 1.6, one after the other before the tensors' bytes."""
    end = os.fstat(file.fileno()).st_size
    for _ in range(PICKLES):
        if file.tell() < end:
            yield file


def _pickles_of_archive(path: Path, file: BinaryIO) -> list[BinaryIO]:
    """Raises InputError for an archive that is damaged or compressed."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > path.stat().st_size or any(member.compress_type for member in members):
                raise InputError(
                    f"{path}: {path.stat().st_size / 1e6:.1f} MB that unpack to {unpacked / 1e6:.1f} MB; refused, as "
                    "torch.save does not compress"
                )
            names = [member.filename.lower() for member in members]
            if len(set(names)) < len(names):  # nobody knows which of two torch would read
                raise zipfile.BadZipFile
            return [io.BytesIO(archive.read(member)) for member in members if "pkl" in member.filename.lower()]
    except InputError:
        raise
    except (ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):  # torch would read some
        raise InputError(f"{path}: {NOT_READABLE}") from None
