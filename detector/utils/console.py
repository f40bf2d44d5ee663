"""Where sentences and progress are printed."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

EVERY = 30  # seconds between two lines of progress in a file

console = Console(highlight=False, markup=False, soft_wrap=True)


def progress_bar(*columns: ProgressColumn) -> Progress:
    """A bar with the task's description, how much is done and the time left; it disappears when it is done.

    In a file or a pipe, where a bar cannot move, a line of the same every EVERY seconds.
    columns: what is shown instead of how much is done and the time left. A task may add the field `note`.
    """
    columns = columns or (MofNCompleteColumn(), _TimeLeft())
    shown = (TextColumn("{task.description}"), BarColumn(), *columns, _Note())
    return Progress(*shown, console=console, transient=True) if console.is_terminal else _Lines(*shown)


class _TimeLeft(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        return super().render(task).append(" left")


class _Note(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields.get("note", ""))


class _Lines(Progress):
    """Prints its columns, but for the bar, as a line now and then."""

    def __init__(self, *columns: ProgressColumn | str):
        super().__init__(*columns, disable=True)
        self._due = time.monotonic() + EVERY

    def update(self, task_id: TaskID, *args: Any, **changes: Any) -> None:
        super().update(task_id, *args, **changes)
        self._print(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._print(task_id)

    def _print(self, task_id: TaskID) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + EVERY
        columns = [column for column in self.columns if isinstance(column, ProgressColumn)]
        parts = [str(column(self._tasks[task_id])) for column in columns if not isinstance(column, BarColumn)]
        with suppress(OSError):  # a full disk
            console.print(", ".join(filter(None, parts)))
