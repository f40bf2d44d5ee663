"""File names that somebody else chose: none may leave the folder it is relative to."""

from __future__ import annotations

import re

# nothing, a root, a drive, or a step up
_LEAVES = re.compile(r"^$|^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)")


def stays_inside(name: str) -> bool:
    """Whether a file name is one below its folder; in Windows' spelling too, as the file may be used there.

    An annotation file from elsewhere must not choose which files of this machine are opened.
    """
    return not _LEAVES.search(name)
