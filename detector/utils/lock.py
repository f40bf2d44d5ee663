"""One process at a time in a directory: a lock that the system takes back when the process dies, however it does."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None

from detector.utils.errors import InputError

NAME = ".lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Make `directory` if need be, and hold its lock. Raises InputError, naming the process that has it.

    POSIX record locks (fcntl, not flock): forked workers do not inherit them, and so do not hold a dead run's lock
    until they notice. The pid in the file is only for the message. File systems without locks are used without.
    """
    if fcntl is None:
        yield
        return
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAME
    file = _acquired(path)
    try:
        with suppress(OSError):  # a full disk
            os.ftruncate(file, 0)
            os.write(file, f"{os.getpid()} {socket.gethostname()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock goes: whoever waits for this very file sees that it is gone
        os.close(file)
        if made:
            with suppress(OSError):  # not empty
                directory.rmdir()


def _acquired(path: Path) -> int:
    """Descriptor of the locked file."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            holder = os.read(file, 300).decode(errors="replace").split()
            os.close(file)
            if problem.errno not in (errno.EACCES, errno.EAGAIN):
                return os.open(os.devnull, os.O_RDWR)
            raise InputError(_sentence(path.parent, holder)) from None
        with suppress(FileNotFoundError):
            if os.fstat(file).st_ino == path.stat().st_ino:
                return file
        os.close(file)  # its last holder has just removed it


def _sentence(directory: Path, holder: list[str]) -> str:
    process = f"process {holder[0]} on {holder[1]}" if len(holder) == 2 else "another process"
    return f"{directory}: {process} is working in it; wait until it is done or stop it, or use another output_dir"
