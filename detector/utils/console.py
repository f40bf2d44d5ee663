"""Where sentences and progress bars are printed."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False, markup=False, soft_wrap=True)


def progress_bar() -> Progress:
    """A bar that shows a description, how much is done, the time left, and the task's field `note`.

    It disappears when it is done. Nothing is shown if the console is a file.
    """
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"), console=console, transient=True,
        disable=not console.is_terminal,  # to a file, rich would write an empty line
    )  # fmt: skip
