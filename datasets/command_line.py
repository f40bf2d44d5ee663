"""What the scripts of this folder share, beside the project's own command line (detector.utils.cli)."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

PROJECT = Path(__file__).resolve().parents[1]


def count(text: str) -> int:
    """An argparse type: a whole number, at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small: at least 1")
    return value


def add_writing_options(parser: argparse.ArgumentParser) -> None:
    """What every converter lets choose about the file that it writes: see CocoWriter."""
    parser.add_argument(
        "--categories-of",
        type=Path,
        metavar="JSON",
        help="take the categories of this COCO file: the train split's, when converting val",
    )
    parser.add_argument("--drop-bad", action="store_true", help="leave out and count what is wrong")


def progress() -> Progress:
    """A bar that counts things done."""
    return bar(MofNCompleteColumn(), TimeRemainingColumn())


def bar(*columns: ProgressColumn) -> Progress:
    """A progress bar on stderr; none where that is a file or a pipe, which is to hold errors alone."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), *columns, console=console, disable=not console.is_terminal
    )
