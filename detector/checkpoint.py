"""Checkpoints: one file with everything a run needs to go on or a user needs to detect. Written whole or not at all."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import torch

from detector.models.files import as_state_dict, is_file_name, read_file, read_torch_file
from detector.models.layouts import Weights, check_complete, published, recognised
from detector.models.retinanet import RetinaNet
from detector.models.weights import Transfer, transfer
from detector.utils.errors import InputError
from detector.utils.signals import StopRequest

FORMAT = 2  # raised when the contents change meaning; `_upgraded` reads the older ones
# Of every checkpoint. Those of a training also have class_counts (boxes of each class) and, since format 2, deployment
# (evaluation/deployment.py; None before an evaluation); `last` has all that a training needs to go on.
CONTENTS = ("format", "model", "config", "class_names", "category_ids")


def save(path: Path, state: dict) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, rename: a reader sees the old file or the new.

    Ctrl-C and SIGTERM wait until that is done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with StopRequest() as stop:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    if stop.signum:
        signal.raise_signal(stop.signum)


def load(path: Path) -> dict:
    """A checkpoint's contents, tensors on the CPU; no code in it is run. Raises InputError."""
    state = read_torch_file(path)
    if not _is_checkpoint(state):
        raise InputError(f"{path}: not a checkpoint of this project (it has not all of {', '.join(CONTENTS)})")
    return _upgraded(state, path)


def find(source: Path) -> Path:
    """The checkpoint file of a run directory (best, else last) or the file itself. Raises InputError."""
    if not source.is_dir():
        return source
    for name in ("best.pt", "last.pt"):
        if (source / "checkpoints" / name).exists():
            return source / "checkpoints" / name
    raise InputError(f"{source}: no checkpoints/best.pt or checkpoints/last.pt in it; is it a run directory?")


def read_detector(source: str) -> Weights:
    """What `model.weights` names: a run directory or a checkpoint of ours, a file in another layout that `recognised`
    knows, or weights published by torchvision. Raises InputError.
    """
    path = find(Path(source))
    if not path.is_file() and not is_file_name(source):
        return published(source)
    contents = read_file(path)
    if not _is_checkpoint(contents):
        return recognised(as_state_dict(contents, path), str(path))
    contents = _upgraded(contents, path)
    names = contents["class_names"]
    ids = dict(zip(names, contents["category_ids"], strict=True))
    settings = contents["config"]["model"]
    check_complete(contents["model"], str(path))
    return Weights(str(path), "a checkpoint of this project", contents["model"], len(names), names, ids, settings)


def start_from(
    model: RetinaNet, source: str, class_names: list[str], class_map: Mapping[str, str] | None = None
) -> Transfer:
    """Load what fits of `model.weights` into a newly built model of the classes `class_names`, see `transfer`.

    class_map: renamed classes, name in `class_names` → name in the weights. Raises InputError.
    """
    return transfer(model, read_detector(source), class_names, class_map)


def _is_checkpoint(state: object) -> bool:
    return isinstance(state, dict) and set(CONTENTS) <= state.keys() and isinstance(state["config"], dict)


def _upgraded(state: dict, path: Path) -> dict:
    """A checkpoint of an older format as one of this. Raises InputError for an unknown format."""
    if state["format"] not in range(1, FORMAT + 1):
        raise InputError(f"{path}: format {state['format']!r} is not one that this version reads (1 to {FORMAT})")
    return state | {"format": FORMAT}
