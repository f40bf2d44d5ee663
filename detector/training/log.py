"""Where a run writes its reports: sentences to the console and log.txt, figures to metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from detector.utils.atomic import replacing, write_atomically
from detector.utils.console import console
from detector.utils.disk import warn_if_unwritable
from detector.utils.json_lines import LineFile, read_json_lines


class RunLog:
    """The open log files of a run directory.

    If a file cannot be written, on a full disk, one warning is printed and the training goes on. The lines of log.txt
    and metrics.jsonl are written later; TensorBoard's curves keep a gap.

    resume_at: (optimizer steps, evaluated epochs) of the checkpoint that a training resumes from. Everything logged
    after it is removed, as it will be logged again.
    """

    def __init__(self, directory: Path, resume_at: tuple[int, int] | None = None):
        self._directory, self._metrics_path = directory, directory / "metrics.jsonl"
        if resume_at:
            self._remove_lines_after(*resume_at)
            kept = read_json_lines(self._metrics_path)
            remove_events(directory / "tensorboard", {(line["kind"], line["step"]) for line in kept})
        self._metrics = LineFile(self._metrics_path)
        self._text = LineFile(directory / "log.txt")
        self._reported: set[str] = set()  # files about which a warning was printed
        self._tensorboard: SummaryWriter | None = None  # None while it cannot be written
        self._open_tensorboard()

    def say(self, text: str, to_console: bool = True) -> None:
        """Write a sentence to log.txt and, unless `to_console` is False, to the console."""
        if to_console:
            with suppress(OSError):  # the console may be a file on the same full disk
                console.print(text)
        with self._unless_full("log.txt"):
            self._text.write(text)

    def numbers(self, kind: str, step: int, epoch: int, values: dict[str, Any]) -> None:
        """Write a line as `line` does, and the numbers among `values` to TensorBoard as `kind/name`."""
        self._scalars(kind, self.line(kind, step, epoch, values), step)

    def line(self, kind: str, step: int, epoch: int, values: dict[str, Any]) -> dict[str, Any]:
        """Write one line of metrics.jsonl, with the time. Returns `values` as written: None for what is not finite."""
        values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        with self._unless_full("metrics.jsonl"):
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            self._metrics.write(json.dumps({"kind": kind, "step": step, "epoch": epoch, "time": now, **values}))
        return values

    def per_class(self, step: int, epoch: int, summary: dict[str, Any]) -> None:
        """Write one line of metrics.jsonl of kind `classes`, and to TensorBoard `classes/<figure>/<class name>`.

        summary: what ClassStatistics.summary returns.
        """
        self.numbers("classes", step, epoch, summary)
        for name, figures in summary["per_class"].items():
            self._scalars("classes", {f"{figure}/{name}": value for figure, value in figures.items()}, step)

    def picture(self, name: str, step: int, image: np.ndarray) -> None:
        """Write a picture of an evaluation, (H, W, 3) uint8 RGB, to TensorBoard as `eval/name`."""
        if tensorboard := self._tensorboard:
            with self._unless_full("TensorBoard"):
                tensorboard.add_image(f"eval/{name}", image, step, dataformats="HWC")

    def flush(self) -> None:
        """Flush all files to the disk. Call this before saving a checkpoint, which relies on what was logged so far."""
        for name, file in (("metrics.jsonl", self._metrics), ("log.txt", self._text)):
            with self._unless_full(name):
                file.flush()
        with self._unless_full("TensorBoard"):
            if self._tensorboard:
                self._tensorboard.flush()
            elif not self._metrics.is_behind:  # the disk has room again
                self._open_tensorboard()

    def close(self) -> None:
        """Write what is left and close the files."""
        for name, file in (("metrics.jsonl", self._metrics), ("log.txt", self._text)):
            with self._unless_full(name):
                file.close()
        if tensorboard := self._tensorboard:
            with self._unless_full("TensorBoard"):
                tensorboard.close()

    def _open_tensorboard(self) -> None:
        with self._unless_full("TensorBoard"):
            self._tensorboard = SummaryWriter(str(self._directory / "tensorboard"))

    def _scalars(self, kind: str, values: dict[str, Any], step: int) -> None:
        if tensorboard := self._tensorboard:  # a local name: `flush` in another thread may set it to None
            with self._unless_full("TensorBoard"):
                for name, value in values.items():
                    if isinstance(value, (int, float)):
                        tensorboard.add_scalar(f"{kind}/{name}", value, step)

    def _unless_full(self, name: str) -> AbstractContextManager[None]:
        def warn(warning: str) -> None:
            if name == "TensorBoard":
                self._tensorboard = None  # its writing thread has ended
            if name not in self._reported:
                self._reported.add(name)
                with suppress(OSError):
                    console.print(f"{warning}; training goes on")

        return warn_if_unwritable(name, warn)

    def _remove_lines_after(self, step: int, evaluated: int) -> None:
        kept = [
            line
            for line in read_json_lines(self._metrics_path)
            if (line["epoch"] <= evaluated if line["kind"] == "eval" else line["step"] <= step)
        ]
        write_atomically(self._metrics_path, "".join(json.dumps(line) + "\n" for line in kept))


def remove_events(directory: Path, kept: set[tuple[str, int]]) -> None:
    """Remove the events of TensorBoard's files in `directory` whose (kind, step) is not in `kept`. Tags: `kind/name`.

    TensorBoard's purge_step would not do: at the step of a checkpoint it cannot tell what was logged before the
    checkpoint from what was logged after it.
    """
    for file in sorted(directory.glob("events.out.tfevents.*")):
        with replacing(file) as out:
            records = RecordWriter(out)
            for raw in RawEventFileLoader(str(file)).Load():  # stops at an incomplete record
                event = Event.FromString(raw)
                tags = [value.tag for value in event.summary.value]
                if all("/" not in tag or (tag.split("/")[0], event.step) in kept for tag in tags):
                    records.write(raw)
