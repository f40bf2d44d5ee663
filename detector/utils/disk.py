"""Going on when the disk is full."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)  # no space, file too large, quota exceeded


@contextmanager
def warn_if_unwritable(what: str, warn: Callable[[str], object]) -> Iterator[None]:
    """Run the block. If it raises OSError (a full disk, say), pass a warning to `warn` and go on after the block.

    what: the file that the block writes, as the subject of a sentence.
    """
    try:
        yield
    except OSError as problem:
        warn(f"warning: {what} could not be written: {problem.strerror}")
