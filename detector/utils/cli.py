"""What the tools share: an argument parser and exit codes that keep the contract."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import difflib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable

from detector.utils.errors import InputError, RunError
from detector.utils.names import one_line
from detector.utils.signals import leave

# Before torch is loaded: OpenMP threads that wait should soon sleep. By default they spin for milliseconds, and where
# anything else needs the cores (the loader's workers, say) each parallel operation waits for the scheduler: on 2 cores,
# with 2 workers, training was seen to fall from 17 to 2 images/s. Alone on the cores it costs nothing.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt(3)
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class ArgumentParser(argparse.ArgumentParser):
    """argparse whose mistakes are one line, `error: ...`, exit code 2."""

    def __init__(self, description: str | None):
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str):
        options = [option for action in self._actions for option in action.option_strings]
        wrong = [word for word in message.split() if word.startswith("-")] if "unrecognized" in message else []
        near = [name for word in wrong for name in difflib.get_close_matches(word.split("=")[0], options, n=1)]
        raise SystemExit(_fail(f"{message}; {f'did you mean {near[0]}?' if near else 'see --help'}"))


def run(main: Callable[[], int | None]) -> None:
    """Run a tool's main and exit: 0 done, 2 the input is wrong (one line), 130 / 143 stopped by Ctrl-C / SIGTERM, and
    1 otherwise (one line for a RunError or a full disk, else a traceback)."""
    _unwind_on_sigterm()
    _leave_on_second_ctrl_c()
    threading.excepthook = _thread_failed
    if hasattr(signal, "SIGUSR1"):  # a request to save; where there is nothing to save, no reason to die, its default
        signal.signal(signal.SIGUSR1, lambda signum, frame: None)
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a class name that the terminal cannot show is no reason to stop
    try:
        sys.exit(main() or 0)
    except InputError as problem:
        sys.exit(_fail(str(problem)))
    except RunError as problem:
        _fail(str(problem))
        sys.exit(1)
    except (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError) as problem:
        sys.exit(_fail(f"{problem.filename}: {problem.strerror}"))
    except OSError as problem:
        if problem.errno not in FULL:
            raise
        _fail(f"{problem.filename or 'writing'}: {problem.strerror}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _unwind_on_sigterm() -> None:
    """SIGTERM ends this process as an exception would, so that its workers end too; forked workers it ends at once.

    (A worker that unwound could keep a lock which its parent waits for.)
    """
    main_process = os.getpid()

    def stop(signum: int, frame) -> None:
        if os.getpid() != main_process:
            os._exit(128 + signum)
        sys.exit(128 + signum)

    signal.signal(signal.SIGTERM, stop)


def _leave_on_second_ctrl_c() -> None:
    """Ctrl-C raises KeyboardInterrupt, as ever; another, while the process cleans up, ends it at once."""

    def interrupt(signum: int, frame) -> None:
        signal.signal(signal.SIGINT, lambda signum, frame: leave(128 + signum))
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is for background jobs
        signal.signal(signal.SIGINT, interrupt)


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    """No traceback of a thread (TensorBoard's) that finds the disk full: whoever writes through it hears of it."""
    if not (isinstance(args.exc_value, OSError) and args.exc_value.errno in FULL):
        threading.__excepthook__(args)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step instead of returning it to the system.

    Every step needs the same hundreds of megabytes again, and fresh pages are slow to get: training on a CPU was seen
    to spend a quarter of its time on them.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_TRIM_THRESHOLD, -1)
        libc.mallopt(M_MMAP_MAX, 0)


def _fail(message: str) -> int:
    print("error:", one_line(message), file=sys.stderr)
    return 2
