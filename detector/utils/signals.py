"""Ctrl-C and SIGTERM as a request to stop after the current step, instead of an exception in the middle of it."""

from __future__ import annotations

import signal


class StopRequest:
    """Context manager. `signum` is None until SIGINT or SIGTERM arrives; a second Ctrl-C stops at once."""

    def __init__(self):
        self.signum: int | None = None

    def __enter__(self) -> StopRequest:
        self._previous = {s: signal.signal(s, self._receive) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _receive(self, signum: int, frame) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
