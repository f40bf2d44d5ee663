"""Where a run writes what it says: console and log.txt (sentences), metrics.jsonl and TensorBoard (numbers)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from detector.utils.atomic import replacing, write_whole
from detector.utils.console import console
from detector.utils.records import LineFile, read_records


class RunLog:
    """Opens the log files of a run directory. Where they cannot be written, on a full disk, that is said once, and the
    training goes on; lines are written later, if they can be, while TensorBoard goes on with a gap.

    resume_at: (steps, evaluated epochs) that are done, to go on after these and forget what came later.
    """

    def __init__(self, directory: Path, resume_at: tuple[int, int] | None = None):
        self._directory, self._metrics_path = directory, directory / "metrics.jsonl"
        if resume_at:
            self._forget_after(*resume_at)
            kept = read_records(self._metrics_path)
            forget_events(directory / "tensorboard", {(record["kind"], record["step"]) for record in kept})
        self._metrics = LineFile(self._metrics_path)
        self._text = LineFile(directory / "log.txt")
        self._failed: set[str] = set()
        self._tensorboard: SummaryWriter | None = None
        self._open_tensorboard()

    def say(self, text: str, to_console: bool = True) -> None:
        """A sentence for people."""
        if to_console:
            with suppress(OSError):  # it may be a file on a full disk, too
                console.print(text)
        with self._unless_full("log.txt"):
            self._text.write(text)

    def numbers(self, kind: str, step: int, epoch: int, values: dict) -> None:
        """One line of metrics.jsonl; the figures among `values` also go to TensorBoard as `kind/name`."""
        values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        with self._unless_full("metrics.jsonl"):
            self._metrics.write(json.dumps({"kind": kind, "step": step, "epoch": epoch, **values}))
        self._scalars(kind, values, step)

    def per_class(self, step: int, epoch: int, summary: dict) -> None:
        """One line of metrics.jsonl, of kind `classes`, and to TensorBoard `classes/<figure>/<class name>`.

        summary: as ClassStatistics.summary gives it.
        """
        self.numbers("classes", step, epoch, summary)
        for name, figures in summary["per_class"].items():
            self._scalars("classes", {f"{figure}/{name}": value for figure, value in figures.items()}, step)

    def picture(self, name: str, step: int, image: np.ndarray) -> None:
        """An (H, W, 3) uint8 RGB picture of an evaluation, to TensorBoard as `eval/name`."""
        if tensorboard := self._tensorboard:
            with self._unless_full("TensorBoard"):
                tensorboard.add_image(f"eval/{name}", image, step, dataformats="HWC")

    def flush(self) -> None:
        """To the disk, so that a checkpoint that is written next comes after what it says was logged."""
        for name, file in (("metrics.jsonl", self._metrics), ("log.txt", self._text)):
            with self._unless_full(name):
                file.flush()
        with self._unless_full("TensorBoard"):
            if self._tensorboard:
                self._tensorboard.flush()
            elif not self._metrics.is_behind:  # there is room again
                self._open_tensorboard()

    def close(self) -> None:
        for name, file in (
            ("metrics.jsonl", self._metrics),
            ("log.txt", self._text),
            ("TensorBoard", self._tensorboard),
        ):
            if file:
                with self._unless_full(name):
                    file.close()

    def _open_tensorboard(self) -> None:
        with self._unless_full("TensorBoard"):
            self._tensorboard = SummaryWriter(self._directory / "tensorboard")

    def _scalars(self, kind: str, values: dict, step: int) -> None:
        if tensorboard := self._tensorboard:  # `flush`, in another thread, may find that it cannot be written
            with self._unless_full("TensorBoard"):
                for name, value in values.items():
                    if isinstance(value, (int, float)):
                        tensorboard.add_scalar(f"{kind}/{name}", value, step)

    @contextmanager
    def _unless_full(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            if name == "TensorBoard":
                self._tensorboard = None  # its thread has ended
            if name not in self._failed:
                self._failed.add(name)
                with suppress(OSError):
                    console.print(f"warning: {name} cannot be written: {problem.strerror}; training goes on")

    def _forget_after(self, step: int, evaluated: int) -> None:
        """What came after the checkpoint will be done again: its lines would stand twice."""
        kept = [
            record
            for record in read_records(self._metrics_path)
            if (record["epoch"] <= evaluated if record["kind"] == "eval" else record["step"] <= step)
        ]
        write_whole(self._metrics_path, "".join(json.dumps(record) + "\n" for record in kept))


def forget_events(directory: Path, kept: set[tuple[str, int]]) -> None:
    """Of TensorBoard's files in `directory`, keep only what is of (kind, step) in `kept`, where a tag is `kind/name`.

    (Its own way, a purge_step, cannot tell what was logged before a checkpoint from what came after it at its step.)
    """
    for file in sorted(directory.glob("events.out.tfevents.*")):
        with replacing(file) as out:
            records = RecordWriter(out)
            for raw in RawEventFileLoader(str(file)).Load():  # ends where a record was cut short
                event = Event.FromString(raw)
                tags = [value.tag for value in event.summary.value]
                if all("/" not in tag or (tag.split("/")[0], event.step) in kept for tag in tags):
                    records.write(raw)
