"""Files that are written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path` to write to. After the block it is flushed to the disk and renamed to `path`.

    If the block raises, `path` keeps its old contents. Raises OSError (a full disk, say) that names `path`.
    """
    path = path.resolve()  # of a link, the target is replaced
    # The name does not contain path's own: TensorBoard reads every file with "tfevents" in its name.
    temporary = path.with_name(f"writing.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as problem:
        raise type(problem)(problem.errno, problem.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace the contents of `path` by a text, in UTF-8. Raises OSError (a full disk, say)."""
    with replacing(path) as file:
        file.write(text.encode(errors="replace"))  # a class name may hold half of a surrogate pair
