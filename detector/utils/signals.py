"""Signals as requests that are met after the current step, instead of exceptions in the middle of it.

SIGINT (Ctrl-C) and SIGTERM ask to save and stop; SIGUSR1, which schedulers send ahead of a preemption, to save.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator

SAVE = getattr(signal, "SIGUSR1", None)  # None on Windows
HANDLED = [s for s in (signal.SIGINT, signal.SIGTERM, SAVE) if s is not None]


class StopRequest:
    """Context manager. `signum` is None until SIGINT or SIGTERM arrives; a second Ctrl-C ends the process at once.

    save: whether SIGUSR1 has arrived; for whoever saves to put back.
    """

    def __init__(self):
        self.signum: int | None = None
        self.save = False

    def __enter__(self) -> StopRequest:
        heard = [s for s in HANDLED if signal.getsignal(s) is not signal.SIG_IGN]  # background jobs ignore Ctrl-C
        self._previous = {s: signal.signal(s, self._receive) for s in heard}
        return self

    def __exit__(self, *exception) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _receive(self, signum: int, frame) -> None:
        if signum == SAVE:
            self.save = True
        elif signum == signal.SIGINT and self._asked_before():
            leave(128 + signum)
        else:
            self.signum = signum

    def _asked_before(self) -> bool:
        """Here, or in a StopRequest around this one."""
        around = getattr(self._previous.get(signal.SIGINT), "__self__", None)
        return self.signum is not None or (isinstance(around, StopRequest) and around._asked_before())


def leave(code: int) -> None:
    """End this process now, and its workers: nothing is saved, cleaned up or said."""
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # a progress bar hides the cursor
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Within it, what is HANDLED waits in this thread; processes forked there have it wait until they `let_through`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """To be called in a process that was forked while signals were held back, when it is ready for them."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
