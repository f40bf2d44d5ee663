"""Finding the name that a user meant: the hint at the end of an error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from detector.utils.errors import InputError
from detector.utils.text import shortened

T = TypeVar("T")

# Limits of what is compared: difflib's time grows with the square of the length; a few thousand names take a second.
LONGEST_COMPARED, MOST_COMPARED = 200, 5000


def lookup(table: Mapping[str, T], name: str, setting: str) -> T:
    """The entry of a table that a setting names. Raises InputError with the nearest name.

    setting: its dotted path, such as "loss.box", for the message.
    """
    if name not in table:
        raise InputError(f"{setting}: no {name!r}; {did_you_mean(name, table)}")
    return table[name]


def did_you_mean(name: object, candidates: Iterable[object], limit: int = 8) -> str:
    """The end of a sentence: `did you mean 'X'?`, or `there is: A, B ...` (at most `limit`) if nothing is near."""
    names = [str(c) for c in candidates]
    near = nearest(str(name), names)
    if near is not None:
        return f"did you mean {near!r}?"
    return f"there is: {shortened(names, limit)}" if names else "there is none"


def nearest_file(path: Path, pattern: str = "*") -> str:
    """The end of a sentence about a missing path: the nearest name beside it, or what is missing there.

    pattern: what it may be: `*`, `*.json`, or `*/` for folders.
    """
    if not path.parent.is_dir():
        missing = next(p for p in reversed(path.parents) if not p.is_dir())
        return f"there is no folder {missing}"
    names = sorted(p.name for p in path.parent.glob(pattern))
    if names:
        return did_you_mean(path.name, names)
    kind = "folder" if pattern.endswith("/") else f"{pattern[1:]} file".strip()
    return f"there is no {kind} {'here' if path.parent == Path() else f'in {path.parent}'}"


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant; None if none is near."""
    comparable = [n for n in names if len(n) <= LONGEST_COMPARED][:MOST_COMPARED]
    near = difflib.get_close_matches(name[:LONGEST_COMPARED], comparable, n=1)
    # difflib distinguishes case: `Dog` is not near `DOG`
    near = near or [n for n in names if n.lower() == name.lower()]
    return near[0] if near else None
