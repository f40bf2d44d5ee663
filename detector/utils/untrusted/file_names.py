"""File names from files of unknown origin: none may lead out of the folder to which it is relative."""

from __future__ import annotations

import re

# empty, absolute, with a drive letter, or with a step up
_LEAVES = re.compile(r"^$|^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)")


def stays_inside(name: str) -> bool:
    """Whether a relative file name stays below its folder, on Linux and on Windows.

    An annotation file of unknown origin must not decide which other files of this machine are opened.
    """
    return not _LEAVES.search(name)
