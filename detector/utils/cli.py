"""What all tools share: the argument parser, and `run`, which turns exceptions into exit codes."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import difflib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from detector.utils.disk import DISK_FULL
from detector.utils.errors import InputError, RunError
from detector.utils.signals import exit_at_once
from detector.utils.text import one_line

# This must be set before torch is loaded. By default, OpenMP threads that wait spin for milliseconds. If other
# processes (the loader's workers, say) need the cores, each parallel operation then waits for the scheduler: on 2 cores
# with 2 workers, training fell from 17 to 2 images/s. With free cores, the short wait costs nothing.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt(3)


class ArgumentParser(argparse.ArgumentParser):
    """argparse that reports a mistake as one line, `error: ...`, with exit code 2."""

    def __init__(self, description: str | None):
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        """Exit with the message and, for an unknown option, the nearest one that exists."""
        options = [option for action in self._actions for option in action.option_strings]
        wrong = [word for word in message.split() if word.startswith("-")] if "unrecognized" in message else []
        near = [name for word in wrong for name in difflib.get_close_matches(word.split("=")[0], options, n=1)]
        raise SystemExit(_report(f"{message}; {f'did you mean {near[0]}?' if near else 'see --help'}"))


def run(main: Callable[[], int | None]) -> None:
    """Run a tool's main and exit with its code, or 0.

    2: the input is wrong (one line on stderr). 130, 143: stopped by Ctrl-C, SIGTERM. 1: anything else (one line for a
    RunError or a full disk, otherwise a traceback).
    """
    _raise_on_sigterm()
    _exit_on_second_ctrl_c()
    threading.excepthook = _report_thread
    if hasattr(signal, "SIGUSR1"):  # asks to save; by default it kills a process that has nothing to save
        signal.signal(signal.SIGUSR1, lambda signum, frame: None)
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the terminal may lack a character of a class name
    try:
        _check_single_process()
        sys.exit(main() or 0)
    except InputError as problem:
        sys.exit(_report(str(problem)))
    except RunError as problem:
        _report(str(problem))
        sys.exit(1)
    except OSError as problem:
        if problem.errno in DISK_FULL:
            _report(f"{problem.filename or 'writing'}: {problem.strerror}")
            sys.exit(1)
        if problem.filename is None:  # not about a file: a defect
            raise
        sys.exit(_report(f"{problem.filename}: {problem.strerror}"))
    except KeyboardInterrupt:
        sys.exit(130)


def _check_single_process() -> None:
    """Raise InputError where torchrun or the like starts this tool several times: each would do the whole work."""
    count = os.environ.get("WORLD_SIZE", "")
    if count.isdecimal() and int(count) > 1:
        raise InputError(
            f"started as {count} processes (WORLD_SIZE={count}, as torchrun sets it), but this version works in one; "
            "start it with python alone, or set WORLD_SIZE=1"
        )


def _raise_on_sigterm() -> None:
    """SIGTERM raises SystemExit in this process, so that it ends its workers. Forked workers it ends at once: a worker
    that cleans up could keep a lock that its parent waits for."""
    main_process = os.getpid()

    def stop(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != main_process:
            os._exit(128 + signum)
        sys.exit(128 + signum)

    signal.signal(signal.SIGTERM, stop)


def _exit_on_second_ctrl_c() -> None:
    """The first Ctrl-C raises KeyboardInterrupt. The second, during the clean-up, ends the process at once."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, lambda signum, frame: exit_at_once(128 + signum))
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # background jobs ignore Ctrl-C
        signal.signal(signal.SIGINT, interrupt)


def _report_thread(args: threading.ExceptHookArgs) -> None:
    """Print a thread's traceback, except for a full disk: TensorBoard's thread fails, and the next write reports it."""
    if not (isinstance(args.exc_value, OSError) and args.exc_value.errno in DISK_FULL):
        threading.__excepthook__(args)


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step instead of returning it to the system.

    Every step needs the same hundreds of megabytes, and new pages are slow: training on a CPU spent a quarter of its
    time on them.
    """
    with contextlib.suppress(OSError, AttributeError):  # the C library is not glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_TRIM_THRESHOLD, -1)
        libc.mallopt(M_MMAP_MAX, 0)


def _report(message: str) -> int:
    """Print an error to stderr; the exit code for wrong input."""
    print("error:", one_line(message), file=sys.stderr)
    return 2
