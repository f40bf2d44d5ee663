"""What is printed: sentences and progress bars."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False, markup=False, soft_wrap=True)


def progress_bar() -> Progress:
    """A bar with what it counts, how far it is, and when it will end."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"), console=console, transient=True,
        disable=not console.is_terminal,  # in a file a bar is a blank line
    )  # fmt: skip
