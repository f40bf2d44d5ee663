"""Reading weights, from a local file or published by torchvision; every failure is an InputError.

A file may come from anywhere: no code in it is run, and it takes no more memory than it is long.
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

import safetensors.torch
import torch
from torch import Tensor, nn

from detector.models.pickles import max_values_and_names
from detector.utils.errors import InputError
from detector.utils.names import quoted
from detector.utils.sealed import ARCHIVE

SUFFIXES = (".pth", ".pt", ".safetensors", ".pkl")  # .pkl is meant as a file, too; reading it says why not
TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
WRAPPERS = ("model", "state_dict")  # where trainers put the state dict, beside an epoch, an optimizer ...


def is_file_name(source: str) -> bool:
    """Whether `source` is meant as a file rather than as the name of published weights."""
    return source.endswith(SUFFIXES) or "/" in source


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


def read_file(path: str | Path) -> Any:
    """The contents of a .safetensors file, or of one that torch.save wrote. Raises InputError."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    if path.suffix != ".safetensors":
        return read_torch_file(path)
    try:
        return safetensors.torch.load_file(path)
    except Exception as problem:  # SafetensorError, and what tensors of impossible types or shapes raise
        raise InputError(f"{path}: not readable as weights ({first_line(problem)})") from None


def as_state_dict(contents: Any, source: str | Path) -> dict[str, Tensor]:
    """Parameter name → tensor, from a file's contents: a state dict, or a dict with one as "model" or "state_dict".

    The prefix "module." of DistributedDataParallel is left out. Raises InputError where there is no state dict.
    """
    wrapped = [contents.get(key) for key in WRAPPERS] if isinstance(contents, dict) else []
    state = next((inner for inner in [contents, *wrapped] if _is_state_dict(inner)), None)
    if state is None:
        raise InputError(f'{source}: not a state dict (parameter name → tensor), nor one under "model" or "state_dict"')
    for name, tensor in state.items():
        if not _is_whole(tensor):
            raise InputError(f"{source}: tensor {quoted(name)} is no plain array with all of its values in the file")
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file, see `as_state_dict`, tensors on the CPU. Raises InputError."""
    return as_state_dict(read_file(path), path)


def download(weights: Any, *, setting: str) -> dict[str, Tensor]:
    """The state dict of a member of a torchvision weights enum, from its cache or the network.

    setting: the config's field that may name a local file instead. Raises InputError if it cannot be had.
    """
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as problem:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise InputError(
            f"cannot download {weights.url} ({first_line(problem)}); "
            f"fetch it elsewhere and set {setting} to the local file"
        ) from None


def differences(own: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """A phrase for each tensor whose name or shape differs, the model's `own` first; step counters may be missing."""
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in (own, given)]
    return [
        f"{name} (the model's: {shapes[0].get(name, 'none')}, the file's: {shapes[1].get(name, 'none')})"
        for name in {**without_counters({**own, **given}), **{name: own[name] for name in own if name in given}}
        if shapes[0].get(name) != shapes[1].get(name)
    ]


def first_of(phrases: list[str], limit: int = 3) -> str:
    return "; ".join(phrases[:limit]) + ("; ..." if len(phrases) > limit else "")


def without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict but for batch norm's step counters, which no computation uses and not every file has."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(".num_batches_tracked")}


def load_strictly(module: nn.Module, state: dict[str, Tensor], *, source: str) -> None:
    """Copy `state` into `module`; names and shapes must agree, batch norm's step counters aside.

    Raises InputError naming the first tensors that differ, and leaves the module as it was.
    """
    wrong = differences(module.state_dict(), state)
    if wrong:
        raise InputError(
            f"{source}: another architecture than the configured one; {len(wrong)} tensors differ: {first_of(wrong)}"
        )
    module.load_state_dict(state, strict=False)  # strict, above, but for the counters


def check_holds(state: dict[str, Tensor], count: int, *, source: str) -> None:
    """Raises InputError where `state` cannot be that of a model of at least so many numbers; to be called before that
    is built, so that a small file cannot ask for a large one.
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    if sum(storages.values()) < count:
        raise InputError(
            f"{source}: another architecture than the configured one, which has {count} numbers and more; its tensors "
            f"have {sum(storages.values())} bytes"
        )


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor's values are all there: a view may repeat one value 10^12 times, a meta tensor has none."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.dtype in TYPES
    return plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def is_parameter(name: object, value: object) -> bool:
    """Whether it is an entry of a state dict, with all of its values in the file."""
    return isinstance(name, str) and isinstance(value, Tensor) and _is_whole(value)


def _is_state_dict(contents: Any) -> bool:
    if not isinstance(contents, dict) or not contents:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in contents.items())


def first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]
