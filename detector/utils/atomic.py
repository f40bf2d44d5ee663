"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path` to write to; in the end it is flushed to the disk and renamed.

    Raises OSError (a full disk, say), with the file's name; then what was there still is.
    """
    path = path.resolve()  # where it is a link, its target is replaced
    partial = path.with_name(f"writing.{os.getpid()}.partial")  # what has tfevents in its name, TensorBoard reads
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as problem:
        raise type(problem)(problem.errno, problem.strerror, str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """`replacing` for a text. Raises OSError."""
    with replacing(path) as file:
        file.write(text.encode(errors="replace"))  # a class name may hold what UTF-8 has not
