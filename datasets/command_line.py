"""What the scripts of this folder share: one-line errors with exit code 2, paths, and a progress bar."""

import argparse
import difflib
import sys
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


class BadInput(ValueError):
    """Something only the user can put right; the text says what, where, and the nearest right thing."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, naming the option probably meant."""

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str):
        known = [option for action in self._actions for option in action.option_strings]
        near = [match for word in message.split() if word.startswith("-")
                for match in difflib.get_close_matches(word.split("=")[0], known, n=1)]
        hint = f"; did you mean {near[0]}?" if near and "unrecognized" in message else "; see --help"
        self.exit(2, f"error: {message}{hint}\n")


def count(text: str) -> int:
    """An argparse type: a whole number, at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small: at least 1")
    return value


def progress() -> Progress:
    """A bar that counts things done."""
    return bar(MofNCompleteColumn(), TimeRemainingColumn())


def bar(*columns: ProgressColumn) -> Progress:
    """A progress bar on stderr; none where that is a file or a pipe, which is to hold errors alone."""
    console = Console(stderr=True)
    return Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=console,
                    disable=not console.is_terminal)


def run(main) -> None:
    """Call main() and exit as the project's commands do: 0 done, 2 bad input, 130 stopped by Ctrl-C."""
    try:
        main()
    except BadInput as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except OSError as error:  # a path that cannot be read or written, a full disk
        sys.stderr.write(f"error: {error.filename or ''}: {error.strerror or error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
