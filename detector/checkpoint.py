"""Checkpoints: one file with everything a run needs to go on or a user needs to detect. Written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from detector.models.files import read_torch_file
from detector.models.retinanet import RetinaNet
from detector.models.weights import load_detector_weights, load_into
from detector.utils.errors import InputError

FORMAT = 1  # raised when the contents change meaning


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
    if not is_checkpoint(state):
        raise InputError(f"{path}: not a checkpoint of this project (no `format`, `model` and `config` in it)")
    if state["format"] > FORMAT:
        raise InputError(f"{path}: written by a newer version (format {state['format']}; this one reads {FORMAT})")
    return state


def is_checkpoint(state: object) -> bool:
    return isinstance(state, dict) and {"format", "model", "config", "class_names"} <= state.keys()


def find(source: Path) -> Path:
    """The checkpoint file of a run directory (best, else last) or the file itself. Raises InputError."""
    if not source.is_dir():
        return source
    for name in ("best.pt", "last.pt"):
        if (source / "checkpoints" / name).exists():
            return source / "checkpoints" / name
    raise InputError(f"{source}: no checkpoints/best.pt or checkpoints/last.pt in it; is it a run directory?")


def start_from(model: RetinaNet, source: str, class_names: list[str]) -> list[str]:
    """Load `model.weights` into a model of the classes `class_names`, by class name.

    source: a run directory or a checkpoint of ours, or what `load_detector_weights` takes. Returns the names of the
    classes that it does not know and that start from nothing. Raises InputError.
    """
    path = find(Path(source))
    state = read_torch_file(path) if path.is_file() and path.suffix != ".safetensors" else None
    if is_checkpoint(state):
        return load_into(model, state["model"], state["class_names"], class_names, source=source)
    weights, names = load_detector_weights(source)
    return load_into(model, weights, names, class_names, source=source)
