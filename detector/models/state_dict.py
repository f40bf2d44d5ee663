"""State dicts: reading them from a file or a download, comparing them, loading them; every failure is an InputError.

A file may come from anywhere: no code in it runs, and it takes no more memory than it is long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from detector.utils.errors import InputError
from detector.utils.nearest import nearest_file
from detector.utils.text import counted, quoted
from detector.utils.untrusted.torch_file import has_all_values, read_torch_file

SUFFIXES = (".pth", ".pt", ".safetensors", ".pkl")  # .pkl is refused, with the reason, when it is read
WRAPPERS = ("model", "state_dict")  # keys under which trainers save the state dict, beside an epoch, an optimizer, ...


def is_file_name(source: str) -> bool:
    """Whether `source` looks like a file rather than the name of published weights."""
    return source.endswith(SUFFIXES) or "/" in source


def read_file(path: str | Path) -> Any:
    """The contents of a .safetensors file (a dict of tensors), or what torch.save wrote. Raises InputError."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; {nearest_file(path)}")
    if path.suffix != ".safetensors":
        return read_torch_file(path)
    try:
        return safetensors.torch.load_file(path)
    except Exception as problem:  # SafetensorError, and others for impossible types or shapes
        raise InputError(f"{path}: not readable as weights ({first_line(problem)})") from None


def as_state_dict(contents: Any, source: str | Path) -> dict[str, Tensor]:
    """Parameter name → tensor, from a file's contents: a state dict, or a dict with one as "model" or "state_dict".

    The prefix "module." of DistributedDataParallel is removed. Raises InputError if there is no state dict.
    """
    wrapped = [contents.get(key) for key in WRAPPERS] if isinstance(contents, dict) else []
    state = next((inner for inner in [contents, *wrapped] if _is_state_dict(inner)), None)
    if state is None:
        raise InputError(f'{source}: not a state dict (parameter name → tensor), nor one under "model" or "state_dict"')
    for name, tensor in state.items():
        if not has_all_values(tensor):
            raise InputError(f"{source}: tensor {quoted(name)} is no plain array with all of its values in the file")
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file, see `as_state_dict`; its tensors are on the CPU. Raises InputError."""
    return as_state_dict(read_file(path), path)


def download(weights: Any, *, setting: str) -> dict[str, Tensor]:
    """The state dict of a member of one of torchvision's weights enums, from its cache or the network.

    setting: the config's field that may name a local file instead. Raises InputError if the download fails.
    """
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as problem:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise InputError(
            f"cannot download {weights.url} ({first_line(problem)}); "
            f"fetch it elsewhere and set {setting} to the local file"
        ) from None


def differences(own: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """A phrase for each tensor whose name or shape differs, the model's `own` first.

    Batch norm's step counters may be missing from `given`.
    """
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in (own, given)]
    return [
        f"{name} (the model's: {shapes[0].get(name, 'none')}, the file's: {shapes[1].get(name, 'none')})"
        for name in {**without_counters({**own, **given}), **{name: own[name] for name in own if name in given}}
        if shapes[0].get(name) != shapes[1].get(name)
    ]


def first_of(phrases: list[str], limit: int = 3) -> str:
    """The first `limit` phrases, and "..." if there are more."""
    return "; ".join(phrases[:limit]) + ("; ..." if len(phrases) > limit else "")


def without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without batch norm's step counters, which no computation uses and not every file has."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(".num_batches_tracked")}


def load_strictly(module: nn.Module, state: dict[str, Tensor], *, source: str) -> None:
    """Copy `state` into `module`; names and shapes must agree, but batch norm's step counters may be missing.

    Raises InputError naming the first tensors that differ, and then leaves the module as it was.
    """
    wrong = differences(module.state_dict(), state)
    if wrong:
        raise InputError(
            f"{source}: another architecture than the configured one, in {counted(len(wrong), 'tensor')}: "
            f"{first_of(wrong)}"
        )
    module.load_state_dict(state, strict=False)  # `differences` was strict, but for the counters


def _is_state_dict(contents: Any) -> bool:
    if not isinstance(contents, dict) or not contents:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in contents.items())


def first_line(problem: Exception) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(problem).splitlines() or [type(problem).__name__])[0]
