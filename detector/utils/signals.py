"""Signals as requests that are met after the current step, instead of exceptions in the middle of it.

SIGINT (Ctrl-C) and SIGTERM ask to save and stop. SIGUSR1, which schedulers send ahead of a preemption, asks to save.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType

SAVE = getattr(signal, "SIGUSR1", None)  # None on Windows
HANDLED = [s for s in (signal.SIGINT, signal.SIGTERM, SAVE) if s is not None]


class StopRequest:
    """Within this context manager, signals set a flag instead of raising. A second Ctrl-C ends the process at once.

    signum: None until SIGINT or SIGTERM arrives, then its number.
    save: whether SIGUSR1 has arrived. Whoever saves sets it back to False.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.save = False

    def __enter__(self) -> StopRequest:
        heeded = [s for s in HANDLED if signal.getsignal(s) is not signal.SIG_IGN]  # background jobs ignore Ctrl-C
        self._previous = {s: signal.signal(s, self._receive) for s in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if signum == SAVE:
            self.save = True
        elif signum == signal.SIGINT and self._was_asked():
            exit_at_once(128 + signum)
        else:
            self.signum = signum

    def _was_asked(self) -> bool:
        """Whether this StopRequest, or one around it, was asked to stop."""
        around = getattr(self._previous.get(signal.SIGINT), "__self__", None)
        return self.signum is not None or (isinstance(around, StopRequest) and around._was_asked())


def exit_at_once(code: int) -> None:
    """End this process and its workers now, without saving, cleaning up or printing anything."""
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # show the cursor, which a progress bar hides
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Delay the HANDLED signals of this thread until after the block.

    A process that is forked in the block starts with these signals blocked, until it calls `unblock_signals`.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """Receive HANDLED signals again, in a process that was forked within `signals_blocked` and is ready for them."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
