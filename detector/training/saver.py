"""Writes last.pt and best.pt in the background. If the disk is full, it warns and writes the file later.

Which checkpoint is the best is decided in validation.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from detector import checkpoint
from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.training.directory import RunDirectory
from detector.training.log import RunLog
from detector.utils.disk import warn_if_unwritable
from detector.utils.errors import RunError


class Saver:
    """Saves one checkpoint at a time, in a thread; the training waits only for the copy to the CPU's memory.

    A failure is reported when the next checkpoint is saved, or by `wait`. The best checkpoint is kept in memory until
    it and its figures are on the disk.
    """

    def __init__(self, directory: RunDirectory, log: RunLog, config: Config, train: CocoData, val: CocoData):
        self._directory, self._log, self._keep = directory, log, config.train.keep
        self._contents = {
            "config": config.model_dump(),
            "class_names": train.class_names,
            "category_ids": train.category_ids.tolist(),
            "class_counts": train.class_counts().tolist(),
            "num_images": len(train),
            "fingerprints": {"train": train.fingerprint(), "val": val.fingerprint()},
            "deployment": None,  # unless the state has one
        }
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future | None = None
        self._best: dict[str, Any] | None = None
        self._write_figures: Callable[[], None] = lambda: None

    def save_last(self, state: dict[str, Any]) -> None:
        """Write last.pt, and keep `train.keep` earlier ones."""
        self._start(self._directory.last, state, self._keep)

    def remember_best(self, state: dict[str, Any], write_figures: Callable[[], None]) -> None:
        """Remember the best checkpoint. `save_best` writes it, and then calls `write_figures`."""
        self._best, self._write_figures = state, write_figures

    def save_best(self) -> None:
        """Write the best checkpoint and its figures if they are not on the disk yet. On a full disk both are kept in
        memory for the next time."""
        if self._best is None:
            return
        self._start(self._directory.best, self._best)
        if self.wait():
            with warn_if_unwritable("the evaluation of the best checkpoint", self._log.say):
                self._write_figures()
                self._best = None
        if self._best is not None:
            self._best = copied(self._best)  # the weights are about to change

    def wait(self) -> bool:
        """Wait for the checkpoint that is being written. False, and a warning, if it could not be written."""
        writing, self._writing = self._writing, None
        try:
            if writing:
                writing.result()
        except OSError as problem:
            kept = "; the one before is kept" if self._directory.last.exists() else ""
            self._log.say(f"warning: a checkpoint could not be saved ({problem.strerror}){kept}")
            return False
        return True

    def finish(self, state: dict[str, Any]) -> None:
        """Make sure that last.pt, with `state`, and best.pt are on the disk. Raises RunError if they cannot be."""
        saved = self.wait()
        self.save_best()
        if not saved:
            self.save_last(state)
            saved = self.wait()
        if not saved or self._best is not None:
            what = "the best checkpoint or its figures" if saved else "the last checkpoint"
            raise RunError(
                f"{self._directory.path}: {what} could not be saved, see above; make room and go on with --resume"
            )

    def close(self) -> None:
        """Wait for the checkpoint that is being written, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _start(self, path: Path, state: dict[str, Any], keep: int = 0) -> None:
        self.wait()
        copy = copied({**self._contents, **state})

        def write() -> None:
            self._log.flush()  # first, so that the logs hold everything up to this checkpoint
            checkpoint.save(path, copy, keep)

        self._writing = self._thread.submit(write)


def copied(value: Any) -> Any:
    """Nested dicts, lists and tuples with every tensor copied to the CPU, in its own memory layout."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(each) for key, each in value.items()}
    return type(value)(map(copied, value)) if isinstance(value, (list, tuple)) else value
