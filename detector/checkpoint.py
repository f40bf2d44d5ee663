"""Checkpoints: one file with everything a run needs to go on or a user needs to detect. Written whole or not at all."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import torch

from detector.config.file import validate
from detector.models.retinanet import RetinaNet
from detector.models.state_dict import as_state_dict, is_file_name, read_file
from detector.models.weights import transfer
from detector.models.weights.layouts import Weights, check_complete, published, recognised
from detector.models.weights.transfer import Transfer
from detector.utils.console import console
from detector.utils.digest import DamagedError, check_seal, write_sealed
from detector.utils.errors import InputError
from detector.utils.names import quoted, wrong_name
from detector.utils.signals import StopRequest
from detector.utils.untrusted.torch_file import is_parameter, read_torch_file

FORMAT = 3  # raised when the contents change meaning; `_upgraded` reads the older ones
# Of every checkpoint. Those of a training also have class_counts (boxes of each class) and, since format 2, deployment
# (evaluation/deployment.py; None before an evaluation); `best` has `evaluated`, its epoch and value; `last` has all
# that a training needs to go on, since format 3 also `random` (utils/seed.py). Files have a digest since format 3
# (utils/sealed.py).
CONTENTS = ("format", "model", "config", "class_names", "category_ids")


def save(path: Path, state: dict, keep: int = 0) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, rename: a reader sees the old file or the new.

    keep: files that were at `path` before and stay, see `history`; while they change places there is, for a moment,
    only the first of them. Raises OSError (a full disk, say); then what was there still is. In the main thread, Ctrl-C
    and SIGTERM wait until it is done.
    """
    if threading.current_thread() is not threading.main_thread():
        return _save(path, state, keep)
    with StopRequest() as stop:
        _save(path, state, keep)
    if stop.signum:
        signal.raise_signal(stop.signum)


def _save(path: Path, state: dict, keep: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        write_sealed(partial, {"format": FORMAT, **state})
        for older, newer in pairwise([_numbered(path, n) for n in range(keep, -1, -1)]):
            if newer.exists():
                newer.replace(older)
        partial.replace(path)
        for old in history(path):  # of a time when more were kept
            if old != path and int(old.suffixes[0][1:]) > keep:
                old.unlink()
    except OSError:
        partial.unlink(missing_ok=True)  # on a full disk, of all places
        raise
    _flush_names(path.parent)


class Writer:
    """Saves checkpoints in a thread, one after the other; the caller only waits for the copy to the CPU's memory."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future | None = None

    def start(self, path: Path, state: dict, keep: int = 0, before: Callable[[], None] = lambda: None) -> None:
        """`save` a copy of `state` after calling `before`, in the thread; `finish` the one before first."""
        assert self._last is None

        def work(state: dict) -> None:
            before()
            save(path, state, keep)

        self._last = self._thread.submit(work, copied(state))

    def finish(self) -> None:
        """Wait for what is being saved; raises what went wrong with it, OSError where the disk is full."""
        last, self._last = self._last, None
        if last:
            last.result()

    def close(self) -> None:
        self._thread.shutdown()


def copied(value):
    """The same with tensors of its own on the CPU; what is no tensor, dict, list or tuple is as it was."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(each) for key, each in value.items()}
    return type(value)(map(copied, value)) if isinstance(value, (list, tuple)) else value


def read(path: Path) -> object:
    """What torch.save has written to `path`. Raises InputError, also for a damaged file."""
    if path.is_file():
        check_seal(path)
    return read_torch_file(path)


def load(path: Path) -> dict:
    """A checkpoint's contents, tensors on the CPU; no code in it is run. Raises InputError, also for a damaged one."""
    return _checked(read(path), path)


def load_newest(path: Path) -> tuple[dict, Path, list[DamagedError]]:
    """The contents of the newest file of `history(path)` that is not damaged, which that is, and what is wrong with
    those newer than it. Raises InputError if all are damaged.
    """
    problems = []
    for candidate in history(path):
        try:
            check_seal(candidate)
        except DamagedError as problem:
            problems.append(problem)
        else:
            return _checked(read_torch_file(candidate), candidate), candidate, problems
    raise problems[0]


def history(path: Path) -> list[Path]:
    """`path` and the files before it, last.1.pt and so on, that exist; the newest first."""
    older = [file for file in path.parent.glob(f"{path.stem}.*{path.suffix}") if file.suffixes[0][1:].isdigit()]
    return [file for file in (path, *sorted(older, key=lambda file: int(file.suffixes[0][1:]))) if file.exists()]


def find(source: Path) -> Path:
    """The checkpoint file of a run directory (best, else last; the first that is not damaged) or the file itself.

    Says which it leaves out. Raises InputError.
    """
    if not source.is_dir():
        return source
    files = [file for name in ("best.pt", "last.pt") for file in history(source / "checkpoints" / name)]
    if not files:
        raise InputError(f"{source}: no checkpoints/best.pt or checkpoints/last.pt in it; is it a run directory?")
    for file in files:
        try:
            check_seal(file)
        except DamagedError as problem:
            console.print(f"warning: {problem}; the next best is used")
        else:
            return file
    return files[0]  # reading it says what is wrong


def read_detector(source: str) -> Weights:
    """What `model.weights` names: a run directory or a checkpoint of ours, a file in another layout that `recognised`
    knows, or weights published by torchvision. Raises InputError.
    """
    path = find(Path(source))
    if not path.is_file() and not is_file_name(source):
        return published(source)
    if path.is_file():
        check_seal(path)
    contents = read_file(path)
    if not _is_checkpoint(contents):
        return recognised(as_state_dict(contents, path), str(path))
    contents = _checked(contents, path)
    names = contents["class_names"]
    ids = dict(zip(names, contents["category_ids"], strict=True))
    settings = validate(contents["config"], str(path)).model.model_dump()
    check_complete(contents["model"], str(path))
    return Weights(str(path), "a checkpoint of this project", contents["model"], len(names), names, ids, settings)


def start_from(
    model: RetinaNet, source: str, class_names: list[str], class_map: Mapping[str, str] | None = None
) -> Transfer:
    """Load what fits of `model.weights` into a newly built model of the classes `class_names`, see `transfer`.

    class_map: renamed classes, name in `class_names` → name in the weights. Raises InputError.
    """
    return transfer(model, read_detector(source), class_names, class_map)


def _checked(state: object, path: Path) -> dict:
    if not _is_checkpoint(state):
        raise InputError(f"{path}: not a checkpoint of this project (it has not all of {', '.join(CONTENTS)})")
    state = _upgraded(state, path)
    names, ids = state["class_names"], state["category_ids"]
    if not (_is_list_of(str, names) and _is_list_of(int, ids) and len(names) == len(ids)) or any(
        map(wrong_name, names)
    ):
        raise InputError(f"{path}: its class_names and category_ids are not names and as many whole numbers")
    if state.get("class_counts") is not None and not _is_list_of(int, state["class_counts"]):
        raise InputError(f"{path}: its class_counts are not whole numbers")
    model = state["model"]
    if not isinstance(model, dict) or not all(is_parameter(*item) for item in model.items()):
        raise InputError(f"{path}: its model is no state dict of plain tensors")
    return state


def _is_list_of(kind: type, values: object) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _is_checkpoint(state: object) -> bool:
    return isinstance(state, dict) and set(CONTENTS) <= state.keys() and isinstance(state["config"], dict)


def _upgraded(state: dict, path: Path) -> dict:
    """A checkpoint of an older format as one of this. Raises InputError for an unknown format."""
    if type(state["format"]) is not int or not 1 <= state["format"] <= FORMAT:
        raise InputError(f"{path}: format {quoted(state['format'])} is not one that this version reads (1 to {FORMAT})")
    if state["format"] < 2:
        state = {"class_counts": None, "deployment": None, **state}
    if state["format"] < 3 and "optimizer" in state:
        state = {"random": None, **state}
    return state | {"format": FORMAT}


def _numbered(path: Path, n: int) -> Path:
    return path.with_suffix(f".{n}{path.suffix}") if n else path


def _flush_names(directory: Path) -> None:
    """So that a renaming outlasts a loss of power, where the system can say so of a directory."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
