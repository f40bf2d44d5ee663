"""The checkpoint format. A training resumes from last.pt; a detector is loaded from best.pt.

Every checkpoint holds CONTENTS. Those of a training also hold `class_counts` (training boxes per class), `num_images`,
`fingerprints` (of the annotations) and `deployment` (evaluation/deployment.py; None before the first evaluation).
best.pt adds `evaluated`, its epoch and value; last.pt adds the state of the training (training/state.py). Each file
ends in a digest of its bytes (utils/digest.py), and each is written whole or not at all.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from detector.config.file import validate
from detector.config.model import AnchorRule
from detector.models.state_dict import as_state_dict, is_file_name, read_file
from detector.models.weights.layouts import Weights, check_complete, published, recognised
from detector.utils.console import console
from detector.utils.digest import DamagedError, check_digest, save_with_digest
from detector.utils.errors import InputError
from detector.utils.signals import StopRequest
from detector.utils.text import class_name_problem, quoted, shortened
from detector.utils.untrusted.torch_file import is_parameter, read_torch_file

FORMAT = 5  # raised when the contents change meaning
CONTENTS = ("format", "model", "config", "class_names", "category_ids")


def save(path: Path, state: dict[str, Any], keep: int = 0) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, rename it: a reader never sees a part of a file.

    keep: how many earlier files stay beside it (see `history`). If any, `path` is missing for a moment while they are
    renamed.
    In the main thread, Ctrl-C and SIGTERM wait until it is done. Raises OSError, for example on a full disk; the
    earlier file is still there then.
    """
    if threading.current_thread() is not threading.main_thread():
        return _save(path, state, keep)
    with StopRequest() as stop:
        _save(path, state, keep)
    if stop.signum:
        signal.raise_signal(stop.signum)


def _save(path: Path, state: dict[str, Any], keep: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        save_with_digest(partial, {"format": FORMAT, **state})
        for older, newer in pairwise([_numbered(path, n) for n in range(keep, -1, -1)]):
            if newer.exists():
                newer.replace(older)
        partial.replace(path)
        for old in history(path):
            if old != path and _number(old) > keep:  # `keep` was larger before
                old.unlink()
    except OSError:
        partial.unlink(missing_ok=True)  # it takes room on a full disk
        raise
    _flush_names(path.parent)


def read(path: Path) -> object:
    """Whatever torch.save wrote to `path`; no code in it is run. Raises InputError, also for a damaged file."""
    if path.is_file():
        check_digest(path)
    return read_torch_file(path)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's contents, tensors on the CPU. Raises InputError, also for a damaged file."""
    return _checked(read(path), path)


def load_newest(path: Path) -> tuple[dict[str, Any], Path, list[DamagedError]]:
    """The newest file of `history(path)` that is not damaged: its contents, its path, and what is wrong with each newer
    file. Raises InputError if all are damaged.
    """
    problems = []
    for candidate in history(path):
        try:
            check_digest(candidate)
        except DamagedError as problem:
            problems.append(problem)
        else:
            return _checked(read_torch_file(candidate), candidate), candidate, problems
    raise problems[0]


def history(path: Path) -> list[Path]:
    """The existing files among `path` and its predecessors (last.pt, last.1.pt, ...), newest first."""
    older = [file for file in path.parent.glob(f"{path.stem}.*{path.suffix}") if file.suffixes[0][1:].isdigit()]
    return [file for file in (path, *sorted(older, key=_number)) if file.exists()]


def find(source: Path) -> Path:
    """The checkpoint of a run directory: best.pt, else last.pt, skipping damaged files with a warning. A file is
    returned as it is. Raises InputError where there is none.
    """
    if not source.is_dir():
        return source
    files = [file for name in ("best.pt", "last.pt") for file in history(source / "checkpoints" / name)]
    if not files:
        runs = sorted({str(file.parents[1]) for file in source.glob("*/checkpoints/*.pt")})
        hint = f"there is: {shortened(runs)}" if runs else "is it a run directory?"
        raise InputError(f"{source}: no checkpoints/best.pt or checkpoints/last.pt in it; {hint}")
    for file in files:
        try:
            check_digest(file)
        except DamagedError as problem:
            console.print(f"warning: {problem}; using the next best checkpoint")
        else:
            return file
    return files[0]  # all are damaged: reading this one raises the error


def read_detector(source: str) -> Weights:
    """The weights that `model.weights` names: a run directory or checkpoint of this project, a file in another layout
    (models/weights/layouts.py), or weights that torchvision publishes. Raises InputError.
    """
    path = find(Path(source))
    if _is_published(source):
        return published(source)
    if path.is_file():
        check_digest(path)
    contents = read_file(path)
    if not _is_checkpoint(contents):
        return recognised(as_state_dict(contents, path), str(path))
    state = _checked(contents, path)
    names = state["class_names"]
    ids = dict(zip(names, state["category_ids"], strict=True))
    model = validate(state["config"], str(path)).model
    check_complete(state["model"], str(path))
    return Weights(
        str(path),
        "a checkpoint of this project",
        state["model"],
        num_rows=len(names),
        row_names=names,
        category_ids=ids,
        settings=model.model_dump(),
        anchor_rule=model.anchors.resolved_rule,
    )


def anchor_rule(source: str | None) -> AnchorRule:
    """What `model.anchors.rule` auto stands for with the `model.weights` source: the rule that they were trained with;
    exact without a detector. Published weights are not downloaded for it. Raises InputError as `read_detector`.
    """
    if source is None:
        return "exact"
    return "torchvision" if _is_published(source) else read_detector(source).anchor_rule


def _is_published(source: str) -> bool:
    """Whether `source` is a name rather than a file or a run directory."""
    return not Path(source).exists() and not is_file_name(source)


def _checked(state: object, path: Path) -> dict[str, Any]:
    if not _is_checkpoint(state):
        raise InputError(f"{path}: not a checkpoint of this project; it lacks some of {', '.join(CONTENTS)}")
    assert isinstance(state, dict)
    if type(state["format"]) is not int or state["format"] != FORMAT:
        raise InputError(
            f"{path}: checkpoint format {quoted(state['format'])}; this version reads format {FORMAT}; train again "
            "(--overwrite), or use the version that wrote it"
        )
    names, ids = state["class_names"], state["category_ids"]
    sound = _is_list_of(str, names) and _is_list_of(int, ids) and len(names) == len(ids)
    if not sound or any(map(class_name_problem, names)):
        raise InputError(f"{path}: its class_names and category_ids are not names and as many whole numbers")
    if state.get("class_counts") is not None and not _is_list_of(int, state["class_counts"]):
        raise InputError(f"{path}: its class_counts are not whole numbers")
    model = state["model"]
    if not isinstance(model, dict) or not all(is_parameter(*item) for item in model.items()):
        raise InputError(f"{path}: its model is not a state dict of plain tensors")
    return state


def _is_list_of(kind: type, values: object) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _is_checkpoint(state: object) -> bool:
    return isinstance(state, dict) and set(CONTENTS) <= state.keys() and isinstance(state["config"], dict)


def _numbered(path: Path, n: int) -> Path:
    return path.with_suffix(f".{n}{path.suffix}") if n else path


def _number(file: Path) -> int:
    """n of last.n.pt."""
    return int(file.suffixes[0][1:])


def _flush_names(directory: Path) -> None:
    """Flush the directory itself, where the system can, so that a rename survives a loss of power."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
