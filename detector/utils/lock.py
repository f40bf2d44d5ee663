"""A lock that lets one process at a time work in a directory. The system releases it when the process dies."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detector.utils.disk import check_writable
from detector.utils.errors import InputError

if sys.platform != "win32":
    import fcntl

NAME = ".lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of `directory`, which is made if it does not exist (and removed if it stays empty).

    Raises InputError where it cannot be made or written to, and, naming the process, where another holds the lock.
    Nothing is locked on Windows and on file systems without locks. The lock is a POSIX record lock (fcntl, not flock):
    workers that are forked do not inherit it, so they do not keep it after their parent dies. The pid in the file is
    only for the message.
    """
    if sys.platform == "win32":
        yield
        return
    check_writable(directory)
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAME
    file = _acquire(path)
    try:
        with suppress(OSError):  # a full disk
            os.ftruncate(file, 0)
            os.write(file, f"{os.getpid()} {socket.gethostname()}\n".encode())
        yield
    finally:
        # Remove the file before releasing the lock: a process that waits for this file then sees that it is gone.
        path.unlink(missing_ok=True)
        os.close(file)
        if made:
            with suppress(OSError):  # not empty
                directory.rmdir()


def _acquire(path: Path) -> int:
    """The descriptor of the locked file. Raises InputError."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            holder = os.read(file, 300).decode(errors="replace").split()
            os.close(file)
            if problem.errno not in (errno.EACCES, errno.EAGAIN):  # this file system has no locks
                return os.open(os.devnull, os.O_RDWR)
            raise InputError(_who_holds_it(path.parent, holder)) from None
        with suppress(FileNotFoundError):
            if os.fstat(file).st_ino == path.stat().st_ino:
                return file
        os.close(file)  # the last holder has just removed this file


def _who_holds_it(directory: Path, holder: list[str]) -> str:
    process = f"process {holder[0]} on {holder[1]}" if len(holder) == 2 else "another process"
    return f"{directory}: {process} is working in it; wait until it is done or stop it, or use another output_dir"
