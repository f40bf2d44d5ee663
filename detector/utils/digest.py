"""torch.save files that carry the digest of their bytes, so that damage is noticed.

torch.save writes a zip archive. Its comment, which torch leaves empty, becomes `sha256:` and the digest of all bytes
before the comment. Other readers are not disturbed: `torch.load(path, weights_only=True)` reads the file, `unzip -z`
shows the comment.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch

from detector.utils.errors import InputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PREFIX = b"sha256:"
COMMENT_SIZE = len(PREFIX) + 64
COMMENT_LENGTH = COMMENT_SIZE.to_bytes(2, "little")  # the field before the comment; torch writes 0
ARCHIVE = b"PK\x03\x04"  # the first bytes of every zip archive that torch reads
END_OF_ARCHIVE, END_SIZE = b"PK\x05\x06", 22  # the record before the comment
LONGEST_COMMENT = 65535  # of any zip archive
BLOCK = 1 << 20


class DamagedError(InputError):
    """A file does not hold what was written to it."""


class _HashingFile(io.FileIO):
    """A file without a buffer that hashes what is written.

    An OSError is kept in `problem` instead of raised, and everything after it is ignored: torch's archive writer aborts
    the process if a write raises at the wrong moment. There is no buffer, as a worker forked meanwhile would inherit
    it and might write it a second time.
    """

    def __init__(self, path: Path):
        super().__init__(path, "w+")
        self.digest = hashlib.sha256()
        self.problem: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data).cast("B")
        self.digest.update(view)
        done = 0
        try:
            while done < len(view) and not self.problem:  # an almost full disk takes a part
                done += super().write(view[done:])
        except OSError as problem:
            self.problem = problem
        return len(view)


def save_with_digest(path: Path, contents: object) -> None:
    """torch.save `contents` with the digest and flush the file to the disk. Raises OSError (a full disk, say)."""
    with _HashingFile(path) as file:
        torch.save(contents, file)
        file.seek(-2, os.SEEK_END)
        file.write(COMMENT_LENGTH + PREFIX + file.digest.hexdigest().encode())
        if file.problem:
            raise file.problem
        os.fsync(file.fileno())


def check_digest(path: Path) -> None:
    """Raise DamagedError if a file's digest is wrong, it is cut short, or the disk cannot read it.

    Files without a digest, such as those of other programs, pass if their archive is complete. Raises InputError if the
    file cannot be opened for another reason.
    """
    try:
        _check_digest(path)
    except OSError as problem:
        kind = DamagedError if problem.errno == errno.EIO else InputError
        raise kind(f"{path}: cannot be read ({problem.strerror})") from None


def _check_digest(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        raise DamagedError(f"{path}: damaged: it is empty")
    with path.open("rb") as file:
        is_archive = ARCHIVE.startswith(file.read(4))  # a file of 1 to 3 bytes may be the begin of one
        file.seek(max(0, size - END_SIZE - LONGEST_COMMENT))
        tail = file.read()
        end = tail.rfind(END_OF_ARCHIVE)
        comment = tail[end + END_SIZE :]
        has_digest = len(comment) == COMMENT_SIZE and comment.startswith(PREFIX)
        if not is_archive and not has_digest:
            return
        if end < 0 or int.from_bytes(tail[end + END_SIZE - 2 : end + END_SIZE], "little") != len(comment):
            raise DamagedError(f"{path}: damaged: it was cut short")
        if len(comment) == COMMENT_SIZE and PREFIX + _digest(file, size - COMMENT_SIZE - 2) != comment:
            raise DamagedError(f"{path}: damaged: its bytes are not those that were written (their digest differs)")


def _digest(file: BinaryIO, size: int) -> bytes:
    """The digest of what torch wrote: the first `size` bytes, and the comment's length, which was 0."""
    digest = hashlib.sha256()
    file.seek(0)
    while size and (block := file.read(min(BLOCK, size))):
        digest.update(block)
        size -= len(block)
    digest.update(b"\0\0")
    return digest.hexdigest().encode()
