"""The hint at the end of an error: the nearest right name, or the names there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from detector.utils.errors import InputError

T = TypeVar("T")

# What is compared: difflib's time grows with the square of the length, and takes a second for a few thousand names.
LONGEST, MOST = 200, 5000


def chosen(table: Mapping[str, T], name: str, setting: str) -> T:
    """The entry of a table that a setting names. Raises InputError with the nearest name."""
    if name not in table:
        raise InputError(f"{setting}: no {name!r}; {did_you_mean(name, table)}")
    return table[name]


def did_you_mean(name: object, candidates: Iterable[object], limit: int = 8) -> str:
    """The end of a sentence: `did you mean X?`, or `there is: A, B ...` (at most `limit`) when nothing is near."""
    names = [str(c) for c in candidates]
    comparable = [n for n in names if len(n) <= LONGEST][:MOST]
    near = difflib.get_close_matches(str(name)[:LONGEST], comparable, n=1)
    # difflib is case sensitive: `Dog` for `dog` has to be found too
    near = near or [n for n in names if n.lower() == str(name).lower()]
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"there is: {', '.join(names[:limit])}{more}" if names else "there is none"
