"""Reading weights, from a local file or published by torchvision; every failure is an InputError."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from detector.utils.errors import InputError

SUFFIXES = (".pth", ".pt", ".safetensors")


def is_file_name(source: str) -> bool:
    """Whether `source` is meant as a file rather than as the name of published weights."""
    return source.endswith(SUFFIXES) or "/" in source


def read_torch_file(path: str | Path) -> Any:
    """What torch.save wrote, tensors on the CPU. Pickled code is never executed. Raises InputError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except pickle.UnpicklingError:
        raise InputError(f"{path}: not a plain file of tensors; refused, as reading it could run code") from None
    except Exception as problem:  # bytes that are no pickle fail in every way there is
        raise InputError(f"{path}: not readable as weights ({_first_line(problem)})") from None


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Parameter name → tensor on the CPU, from .safetensors or from torch.save's format. Raises InputError."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as problem:
            raise InputError(f"{path}: not readable as weights ({_first_line(problem)})") from None
    state = read_torch_file(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: not a state dict (parameter name → tensor)")
    return state


def download(weights: Any, *, setting: str) -> dict[str, Tensor]:
    """The state dict of a member of a torchvision weights enum, from its cache or the network.

    setting: the config's field that may name a local file instead. Raises InputError if it cannot be had.
    """
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as problem:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise InputError(
            f"cannot download {weights.url} ({_first_line(problem)}); "
            f"fetch it elsewhere and set {setting} to the local file"
        ) from None


def load_strictly(module: nn.Module, state: dict[str, Tensor], *, source: str) -> None:
    """Copy `state` into `module`; names and shapes must agree, batch norm's step counters aside.

    Raises InputError naming the first tensors that differ, and leaves the module as it was.
    """
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    names = [name for name in {**own, **given} if not name.endswith(".num_batches_tracked")]
    wrong = [
        f"{name} (the model's: {own.get(name, 'none')}, the file's: {given.get(name, 'none')})"
        for name in names
        if own.get(name) != given.get(name)
    ]
    if wrong:
        raise InputError(
            f"{source}: another architecture than the configured one; "
            f"{len(wrong)} tensors differ: {'; '.join(wrong[:3])}{'; ...' if len(wrong) > 3 else ''}"
        )
    module.load_state_dict(state, strict=False)  # strict, above, but for the counters


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]
