"""Finding the name that a user meant: the hint at the end of an error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
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
    comparable = [n for n in names if len(n) <= LONGEST_COMPARED][:MOST_COMPARED]
    near = difflib.get_close_matches(str(name)[:LONGEST_COMPARED], comparable, n=1)
    # difflib distinguishes case: `Dog` is not near `DOG`
    near = near or [n for n in names if n.lower() == str(name).lower()]
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there is: {shortened(names, limit)}" if names else "there is none"
