"""Files of torch.save that are there whole or not at all, and that say when they were damaged since.

The zip archive that torch.save writes ends in a comment of ours, `sha256:` and the digest of all bytes before it: other
readers see an archive like any other (`torch.load(path, weights_only=True)` reads it, `unzip -z` shows the comment).
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import torch

from detector.utils.errors import InputError

MARK = b"sha256:"
COMMENT = len(MARK) + 64
LENGTH = COMMENT.to_bytes(2, "little")  # the archive's last two bytes say how long its comment is; torch writes none
ARCHIVE = b"PK\x03\x04"  # what torch takes for a zip archive begins so
END_OF_ARCHIVE, END_SIZE = b"PK\x05\x06", 22
BLOCK = 1 << 20


class DamagedError(InputError):
    """A file is not as it was written."""


class _Hashed:
    """A file to write to, and the digest of what was written.

    An error is kept for later, and what follows it not written: torch's archive writer ends the process where one is
    raised at the wrong moment.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.digest = hashlib.sha256()
        self.problem: OSError | None = None

    def write(self, data: bytes) -> int:
        data = memoryview(data).cast("B")
        self.digest.update(data)
        done = 0
        try:
            while done < len(data) and not self.problem:  # a disk that is nearly full takes a part
                done += self._file.write(data[done:])
        except OSError as problem:
            self.problem = problem
        return len(data)

    def flush(self) -> None:
        pass


def write_sealed(path: Path, contents: object) -> None:
    """torch.save `contents`, with the digest, and flush it to the disk. Raises OSError (a full disk, say)."""
    # no buffer: a worker forked meanwhile would have a copy of it, and might write that too
    with path.open("w+b", buffering=0) as file:
        hashed = _Hashed(file)
        torch.save(contents, hashed)
        if hashed.problem:
            raise hashed.problem
        file.seek(-2, os.SEEK_END)
        comment = MARK + hashed.digest.hexdigest().encode()
        if file.write(LENGTH + comment) != 2 + COMMENT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())


def check_seal(path: Path) -> None:
    """Raises DamagedError where a file's digest is wrong, an archive was cut short, or the disk does not give it back;
    InputError where it cannot be read for another reason. Files without a digest, such as those of earlier versions or
    of other programs, are taken as they are if they have an end.
    """
    try:
        _check_seal(path)
    except OSError as problem:
        kind = DamagedError if problem.errno == errno.EIO else InputError
        raise kind(f"{path}: cannot be read ({problem.strerror})") from None


def _check_seal(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        raise DamagedError(f"{path}: damaged: it is empty")
    with path.open("rb") as file:
        is_archive = ARCHIVE.startswith(file.read(4))  # or was to be one
        file.seek(max(0, size - END_SIZE - 65535))
        tail = file.read()
        end = tail.rfind(END_OF_ARCHIVE)
        comment = tail[end + END_SIZE :]
        if not is_archive and not (len(comment) == COMMENT and comment.startswith(MARK)):
            return
        if end < 0 or int.from_bytes(tail[end + END_SIZE - 2 : end + END_SIZE], "little") != len(comment):
            raise DamagedError(f"{path}: damaged: it was cut short")
        if len(comment) == COMMENT and MARK + _digest(file, size - COMMENT - 2) != comment:
            raise DamagedError(f"{path}: damaged: its bytes are not those that were written (their digest differs)")


def _digest(file: BinaryIO, size: int) -> bytes:
    """Of the first `size` bytes, and the two that the comment's length took the place of."""
    digest = hashlib.sha256()
    file.seek(0)
    while size and (block := file.read(min(BLOCK, size))):
        digest.update(block)
        size -= len(block)
    digest.update(b"\0\0")
    return digest.hexdigest().encode()
