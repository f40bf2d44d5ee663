"""Reading files of torch.save that may come from anywhere: no code in them is run, and they take no more memory than
they are long.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from detector.utils.digest import ARCHIVE
from detector.utils.errors import InputError
from detector.utils.untrusted.pickles import max_values_and_names

TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


LEAST_VALUES = 1_000_000  # nested ones that any file may have


REPEATING = "refused, as its values stand in one another more often than the file is long"


PICKLES = 5  # one after the other in a file of torch before 1.6


# What torch lets a pickle call and what makes any amount of memory out of a few bytes; torch.save writes none of it for
# tensors, numbers and text.
GROWING = ("builtins bytearray", "__builtin__ bytearray", "_codecs encode")


GROWING_OF_TORCH = ("Tensor", "UntypedStorage", "TypedStorage")


NOT_READABLE = "not readable as weights: damaged, cut short, or a file of another kind"


def read_torch_file(path: str | Path) -> Any:
    """What torch.save wrote, tensors on the CPU. Pickled code is never executed. Raises InputError."""
    try:
        _check_size(Path(path))
        # torchvision's reference scripts save their command line beside the weights: a Namespace, which is plain data
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles; what comes of them is said below
            contents = torch.load(path, map_location="cpu", weights_only=True)
        if _count(contents, {}) > _most(Path(path)):
            raise InputError(f"{path}: {REPEATING}")
        return contents
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except Exception as problem:  # bytes that are no pickle fail in every way there is
        if str(path).endswith(".pkl"):
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


def _count(value: object, known: dict[int, int]) -> int:
    """How many values there are in nested ones, counting what stands in several places at each: each takes a byte and
    more in an honest file, but 60 lists that hold the next one twice are 10^18. RecursionError: one is in itself."""
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if not isinstance(value, (dict, list, tuple, set)):
        return 1
    if id(value) not in known:
        children = chain(value, value.values()) if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(child, known) for child in children)
    return known[id(value)]


def _check_size(path: Path) -> None:
    """Raise InputError for a file that takes more memory than it is long: torch.save does not compress, and calls
    nothing that makes more of what is there."""
    try:
        with path.open("rb") as file:
            is_archive = file.read(len(ARCHIVE)) == ARCHIVE
            file.seek(0)
            pickles = _pickles(path, file) if is_archive else _first_pickles(file)
            most, names = max_values_and_names(pickles, _most(path) + 1)
    except OSError:
        return  # torch.load says so
    except (ValueError, IndexError, KeyError, TypeError) as problem:
        raise problem if isinstance(problem, InputError) else InputError(f"{path}: {NOT_READABLE}") from None
    growing = sorted(name for name in names if _grows(name))
    if growing:
        raise InputError(f"{path}: refused, as it names `{growing[0]}`, which could take any amount of memory")
    if most > _most(path):
        raise InputError(f"{path}: {REPEATING}")


def _grows(name: str) -> bool:
    """name: module and what is in it, as in a pickle."""
    return name in GROWING or (name.startswith("torch") and name.endswith(GROWING_OF_TORCH))


def _most(path: Path) -> int:
    """Nested values that a file may have, counting those that stand in several places at each."""
    return max(path.stat().st_size, LEAST_VALUES)


def _first_pickles(file: BinaryIO) -> Iterator[BinaryIO]:
    """Of a file of torch before 1.6: they stand one after the other, before the tensors' bytes."""
    end = os.fstat(file.fileno()).st_size
    for _ in range(PICKLES):
        if file.tell() < end:
            yield file


def _pickles(path: Path, file: BinaryIO) -> list[BinaryIO]:
    """Of an archive. Raises InputError where it is damaged, and where it unpacks to more than it is long."""
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
            if len(set(names)) < len(names):  # which of two torch would read is not known
                raise zipfile.BadZipFile
            return [io.BytesIO(archive.read(member)) for member in members if "pkl" in member.filename.lower()]
    except InputError:
        raise
    except (ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):  # torch would read some
        raise InputError(f"{path}: {NOT_READABLE}") from None


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor's values are all there: a view may repeat one value 10^12 times, a meta tensor has none."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.dtype in TYPES
    return plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def is_parameter(name: object, value: object) -> bool:
    """Whether it is an entry of a state dict, with all of its values in the file."""
    return isinstance(name, str) and isinstance(value, Tensor) and _is_whole(value)
