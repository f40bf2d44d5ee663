"""Checkpoints: one file with everything a run needs to go on or a user needs to detect. Written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from detector.models.files import read_torch_file
from detector.models.retinanet import RetinaNet
from detector.models.weights import NOT_CLASSES, load_detector_weights, load_into
from detector.utils.errors import InputError

FORMAT = 1  # raised when the contents change meaning
CONTENTS = ("format", "model", "config", "class_names", "category_ids")  # of every checkpoint; `last` has more


def save(path: Path, state: dict) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, rename: a reader sees the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path) -> dict:
    """A checkpoint's contents, tensors on the CPU; no code in it is run. Raises InputError."""
    state = read_torch_file(path)
    if not _is_checkpoint(state):
        raise InputError(f"{path}: not a checkpoint of this project (it has not all of {', '.join(CONTENTS)})")
    _check_format(state, path)
    return state


def find(source: Path) -> Path:
    """The checkpoint file of a run directory (best, else last) or the file itself. Raises InputError."""
    if not source.is_dir():
        return source
    for name in ("best.pt", "last.pt"):
        if (source / "checkpoints" / name).exists():
            return source / "checkpoints" / name
    raise InputError(f"{source}: no checkpoints/best.pt or checkpoints/last.pt in it; is it a run directory?")


class Weights(NamedTuple):
    """Weights of a whole detector."""

    state: dict[str, Tensor]  # parameter name → tensor
    slots: list[str] | None  # names of the class rows in order, some of which may be no classes; None: unknown
    category_ids: dict[str, int] | None  # of the classes among them, by name


def read_detector(source: str) -> Weights:
    """What `model.weights` names: a run directory or a checkpoint of ours, or what `load_detector_weights` takes.

    Raises InputError.
    """
    path = find(Path(source))
    contents = read_torch_file(path) if path.is_file() and path.suffix != ".safetensors" else None
    if _is_checkpoint(contents):
        _check_format(contents, path)
        names = contents["class_names"]
        return Weights(contents["model"], names, dict(zip(names, contents["category_ids"], strict=True)))
    state, slots = load_detector_weights(source)
    ids = slots and {name: slot for slot, name in enumerate(slots) if name not in NOT_CLASSES}
    return Weights(state, slots, ids)


def start_from(model: RetinaNet, source: str, class_names: list[str]) -> list[str]:
    """Load `model.weights` into a model of the classes `class_names`, by class name.

    Returns the names of the classes that it does not know and that start from nothing. Raises InputError.
    """
    weights = read_detector(source)
    return load_into(model, weights.state, weights.slots, class_names, source=source)


def _is_checkpoint(state: object) -> bool:
    return isinstance(state, dict) and set(CONTENTS) <= state.keys()


def _check_format(state: dict, path: Path) -> None:
    if state["format"] not in range(1, FORMAT + 1):
        raise InputError(f"{path}: format {state['format']!r} is not one that this version reads (1 to {FORMAT})")
