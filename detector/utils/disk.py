"""Folders that cannot be written to, and going on when the disk is full."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from detector.utils.errors import InputError

DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)  # no space, file too large, quota exceeded


def check_writable(folder: Path) -> None:
    """Raise InputError where the folder cannot be made or written to: before the work, not after. It is not made."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with TemporaryFile(dir=existing):
            pass
    except OSError as problem:
        if problem.errno in DISK_FULL:  # there may be room when the work is done
            return
        raise InputError(
            f"{folder}: cannot be written to ({problem.strerror}); make it writable, or name another folder"
        ) from None


@contextmanager
def warn_if_unwritable(what: str, warn: Callable[[str], object]) -> Iterator[None]:
    """Run the block. If it raises OSError (a full disk, say), pass a warning to `warn` and go on after the block.

    what: the file that the block writes, as the subject of a sentence.
    """
    try:
        yield
    except OSError as problem:
        warn(f"warning: {what} could not be written: {problem.strerror}")
