"""A run's directory: whether a training may start or go on in it, and what is in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from detector import checkpoint
from detector.config.file import dump, validate
from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.training.auto import imbalance
from detector.training.log import RunLog
from detector.utils.atomic import write_whole
from detector.utils.console import console
from detector.utils.errors import InputError

# What --resume may change: everything else would make it another training, half of the one and half of the other.
RESUMABLE = (
    "output_dir", "device", "data.workers", "eval.", "train.epochs", "train.patience", "train.log_every",
    "train.eval_every", "train.save_every", "train.keep", "train.max_hours", "train.max_bad_steps", "data.bad_images",
)  # fmt: skip
# In this order they are removed: nobody can go on with half a run.
RUN_FILES = (
    "checkpoints", "config.yaml", "metrics.jsonl", "log.txt", "tensorboard", "eval", "report.html", "bad_batch.pt",
)  # fmt: skip


class RunDirectory:
    """The directory `config.output_dir` and the names in it."""

    def __init__(self, config: Config):
        self.path = Path(config.output_dir)
        self.last = self.path / "checkpoints" / "last.pt"
        self.best = self.path / "checkpoints" / "best.pt"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluation = self.path / "eval" / "val"
        self.bad_batch = self.path / "bad_batch.pt"
        self.report = self.path / "report.html"
        self.curves = self.path / "eval" / "curves.png"
        self.class_curves = self.path / "eval" / "classes.png"

    def check_free(self) -> None:
        """Raises InputError if there is a run already."""
        if (self.path / "config.yaml").exists() or any((self.path / "checkpoints").glob("*.pt")):
            raise InputError(f"{self.path}: holds a run already; say --resume, --overwrite or output_dir=another")

    def checkpoint_to_resume(self, config: Config) -> dict:
        """The last checkpoint that is not damaged; those that are, are said.

        Raises InputError where there is none, or `config` is not that of its training.

        Where `config` says `train.batch_size: auto` or `imbalance: auto`, it gets what was chosen when the run began.
        """
        if not checkpoint.history(self.last):
            raise InputError(f"{self.path}: no run to go on with (no {self.last}); start it without --resume")
        last, file, problems = checkpoint.load_newest(self.last)
        for damaged, problem in zip(checkpoint.history(self.last), problems, strict=False):
            console.print(f"warning: {problem}")
            damaged.replace(damaged.with_suffix(".damaged"))  # or it would be kept in the place of a good one
        if file != self.last:
            console.print(f"warning: going on from the newest checkpoint that is not damaged, {file}")
        if "optimizer" not in last:
            raise InputError(f"{self.path}: its last checkpoint holds only weights; a training cannot go on from it")
        begun = validate(last["config"], str(self.last))
        if config.train.batch_size == "auto":
            config.train.batch_size = begun.train.batch_size
        imbalance.take_over(config, begun)
        for name, before, now in _changes(begun.model_dump(), config.model_dump()):
            if not name.startswith(RESUMABLE):
                raise InputError(
                    f"{self.path}: --resume goes on with the same training, but {name} was {before} and is {now}; "
                    f"put it back, or start a new run with model.weights={self.path}"
                )
        return last

    def open_log(self, config: Config, resume_at: tuple[int, int] | None) -> RunLog:
        """Open the logs; a new run takes the place of an old one, file by file.

        resume_at: as RunLog has it.
        """
        if resume_at is None:
            for path in (self.path / name for name in RUN_FILES):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        for partial in self.path.glob("*.partial"):  # of a process that was killed
            partial.unlink()
        return RunLog(self.path, resume_at)

    def write_config(self, config: Config) -> None:
        """Write config.yaml, which says that there is a run: after its first checkpoint."""
        write_whole(self.path / "config.yaml", dump(config))


def check_same_data(last: dict, train: CocoData, directory: Path) -> None:
    """Raises InputError unless the checkpoint `last` was trained on `train`, as far as one can tell."""
    if (last["class_names"], last["num_images"]) != (train.class_names, len(train)):
        raise InputError(
            f"{directory}: --resume needs the same training set; it had {last['num_images']} images of "
            f"{', '.join(last['class_names'])}, now it has {len(train)} of {', '.join(train.class_names)}"
        )


def _changes(before: dict, now: dict, path: str = "") -> Iterator[tuple[str, object, object]]:
    """(dotted path, value before, value now) of every setting that differs."""
    for key in now:
        if isinstance(now[key], dict) and isinstance(before.get(key), dict):
            yield from _changes(before[key], now[key], f"{path}{key}.")
        elif before.get(key) != now[key]:
            yield f"{path}{key}", before.get(key), now[key]
