"""What the tools share: an argument parser and exit codes that keep the contract."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from detector.utils.errors import InputError

# Before torch is loaded: threads that wait should sleep. By default they spin, and where anything else needs the cores
# (the loader's workers, another training) every parallel operation then waits for the scheduler; a step on two busy
# cores was seen to take several times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class ArgumentParser(argparse.ArgumentParser):
    """argparse whose mistakes are one line, `error: ...`, exit code 2."""

    def __init__(self, description: str | None):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str):
        raise SystemExit(_fail(f"{message} (see --help)"))


def run(main: Callable[[], int | None]) -> None:
    """Run a tool's main and exit: 0 done, 2 the input is wrong (one line), 130 Ctrl-C, else a traceback and 1."""
    try:
        sys.exit(main() or 0)
    except InputError as problem:
        sys.exit(_fail(str(problem)))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return 2
