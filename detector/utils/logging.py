"""Where a run writes what it says: console and log.txt (sentences), metrics.jsonl and TensorBoard (numbers)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

console = Console(highlight=False, markup=False, soft_wrap=True)


def progress_bar() -> Progress:
    """A bar with what it counts, how far it is, and when it will end."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"), console=console, transient=True,
        disable=not console.is_terminal,  # in a file a bar is a blank line
    )  # fmt: skip


class RunLog:
    """Opens the log files of a run directory.

    resume_at: (steps, evaluated epochs) that are done, to go on after these and forget what came later.
    """

    def __init__(self, directory: Path, resume_at: tuple[int, int] | None = None):
        self._metrics_path = directory / "metrics.jsonl"
        if resume_at:
            self._forget_after(*resume_at)
        self._metrics = self._metrics_path.open("a")
        self._text = (directory / "log.txt").open("a", encoding="utf-8")
        purge = resume_at[0] + 1 if resume_at else None
        self._tensorboard = SummaryWriter(directory / "tensorboard", purge_step=purge)

    def say(self, text: str, to_console: bool = True) -> None:
        """A sentence for people."""
        if to_console:
            console.print(text)
        self._text.write(text + "\n")
        self._text.flush()

    def numbers(self, kind: str, step: int, epoch: int, values: dict) -> None:
        """One line of metrics.jsonl; the figures among `values` also go to TensorBoard as `kind/name`."""
        values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        self._metrics.write(json.dumps({"kind": kind, "step": step, "epoch": epoch, **values}) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._tensorboard.add_scalar(f"{kind}/{name}", value, step)

    def per_class(self, step: int, epoch: int, summary: dict) -> None:
        """One line of metrics.jsonl, of kind `classes`, and to TensorBoard `classes/<figure>/<class name>`.

        summary: as ClassStatistics.summary gives it.
        """
        self.numbers("classes", step, epoch, summary)
        for name, figures in summary["per_class"].items():
            for figure, value in figures.items():
                if value is not None:
                    self._tensorboard.add_scalar(f"classes/{figure}/{name}", value, step)

    def picture(self, name: str, step: int, image: np.ndarray) -> None:
        """An (H, W, 3) uint8 RGB picture, to TensorBoard."""
        self._tensorboard.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self._metrics.close()
        self._text.close()
        self._tensorboard.close()

    def _forget_after(self, step: int, evaluated: int) -> None:
        """What came after the checkpoint will be done again: its lines would stand twice."""
        if not self._metrics_path.exists():
            return
        lines = self._metrics_path.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("}\n")]  # the last may have been cut short
        kept = []
        for line in whole:
            record = json.loads(line)
            if record["epoch"] <= evaluated if record["kind"] == "eval" else record["step"] <= step:
                kept.append(line)
        self._metrics_path.write_text("".join(kept))
