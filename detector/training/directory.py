"""The names in a run directory, and whether a new run may begin in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from detector.config.file import dump
from detector.config.schema import Config
from detector.training.log import RunLog
from detector.utils.atomic import write_atomically
from detector.utils.errors import InputError

# Removed in this order: without its checkpoints, the rest of a run is of no use.
RUN_FILES = (
    "checkpoints", "config.yaml", "metrics.jsonl", "log.txt", "tensorboard", "eval", "report.html", "bad_batch.pt",
)  # fmt: skip


class RunDirectory:
    """A run directory and the names in it."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.last = path / "checkpoints" / "last.pt"
        self.best = path / "checkpoints" / "best.pt"
        self.metrics = path / "metrics.jsonl"
        self.evaluation = path / "eval" / "val"
        self.curves = path / "eval" / "curves.png"
        self.class_curves = path / "eval" / "classes.png"
        self.report = path / "report.html"
        self.bad_batch = path / "bad_batch.pt"

    def check_free(self) -> None:
        """Raises InputError if it already holds a run."""
        if self.config.exists() or any((self.path / "checkpoints").glob("*.pt")):
            raise InputError(f"{self.path}: holds a run already; use --resume, --overwrite or output_dir=another")

    def remove_run(self) -> None:
        """Remove the files of an earlier run."""
        for path in (self.path / name for name in RUN_FILES):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def open_log(self, resume_at: tuple[int, int] | None = None) -> RunLog:
        """Open the logs. resume_at: as for RunLog."""
        self.path.mkdir(parents=True, exist_ok=True)
        for partial in self.path.glob("*.partial"):  # left by a process that was killed
            partial.unlink()
        return RunLog(self.path, resume_at)

    def write_config(self, config: Config) -> None:
        """Write config.yaml. It marks the directory as a run, so the first checkpoint must be there before."""
        write_atomically(self.config, dump(config))
