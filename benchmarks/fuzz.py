"""10,000 broken files of each kind (annotations, YAML, images, checkpoints): each is read, or refused in one sentence.

    python benchmarks/fuzz.py [--kinds json yaml image checkpoint] [--cases 10000] [--seed 0] [--keep out/fuzz]

A case fails if it raises anything but InputError, prints characters that a terminal would obey, or takes more than
DEADLINE seconds. A kind fails if its process uses more than MOST_MEMORY. Prints a line for each kind: cases, failures,
longest case, most memory. Keeps the first file of each distinct failure. Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import hypothesis.strategies
import torch

from detector.utils.console import console
from detector.utils.memory import peak_memory

ROOT = Path(__file__).parents[1]
KINDS = ("json", "yaml", "image", "checkpoint")
DEADLINE = 10  # seconds a case, on a busy machine
MOST_MEMORY = 2e9  # bytes
ROUND = 250  # cases of one run of hypothesis, which keeps what it draws in memory, 200 kB for a checkpoint


class TooLong(BaseException):
    """Not an Exception: code that expects a decoder to fail must not catch it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="folder for files that fail")
    args = parser.parse_args()
    if len(args.kinds) == 1:
        return run(args.kinds[0], args.cases, args.seed, args.keep)
    codes = []
    for kind in args.kinds:  # in a process of its own, to measure its memory
        same = ["--cases", str(args.cases), "--seed", str(args.seed), "--keep", str(args.keep)]
        codes.append(subprocess.run([sys.executable, __file__, "--kinds", kind, *same], check=False).returncode)
        if codes[-1] not in (0, 1):
            print(f"{kind}: the process died with {codes[-1]}; its last file is {args.keep / f'{kind}.last'}")
    return int(any(codes))


def run(kind: str, cases: int, seed: int, keep: Path) -> int:
    """Run the cases of a kind and print its line. Returns the exit code."""
    module = load_cases()
    keep.mkdir(parents=True, exist_ok=True)
    failures: dict[str, int] = {}
    done, longest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        check = getattr(module.Checks(Path(folder) / "files"), kind)

        def run_case(content: bytes) -> None:
            nonlocal done, longest
            (keep / f"{kind}.last").write_bytes(content)  # to be found if the process itself dies
            began = time.perf_counter()
            place = failure_of(check, content)
            took = time.perf_counter() - began
            done, longest = done + 1, max(longest, took)
            if place is None and took > DEADLINE:  # the alarm came where Python ignores exceptions
                place = f"more than {DEADLINE} s"
            if place is not None:
                if place not in failures:
                    (keep / f"{kind}.{len(failures)}").write_bytes(content)
                    print(f"{kind}: {place} ({keep / f'{kind}.{len(failures)}'})", flush=True)
                failures[place] = failures.get(place, 0) + 1

        for begin in range(0, cases, ROUND):
            draw(module.KINDS[kind](), run_case, min(ROUND, cases - begin), seed=seed * 1_000_000 + begin)
    peak = peak_memory(torch.device("cpu"))
    failed = sum(failures.values())
    print(
        f"{kind}: {done} cases, {failed} failures ({len(failures)} distinct), longest {longest:.2f} s, "
        f"most memory {peak / 1e9:.2f} GB",
        flush=True,
    )
    return int(failed > 0 or peak > MOST_MEMORY)


def draw(
    files: hypothesis.strategies.SearchStrategy[bytes], use: Callable[[bytes], None], count: int, seed: int
) -> None:
    """Call `use` with `count` of the files."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(files)
    def each(content: bytes) -> None:
        use(content)

    each()


def failure_of(check: Callable[[bytes], None], content: bytes) -> str | None:
    """The exception that `check` raises and where, None if it does not."""

    def stop(signum: int, frame) -> None:
        raise TooLong(f"more than {DEADLINE} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(DEADLINE)
    try:
        check(content)
    except (Exception, TooLong) as problem:
        frames = traceback.extract_tb(problem.__traceback__)
        where = [f"{Path(f.filename).name}:{f.lineno}" for f in frames[-5:]]
        return f"{type(problem).__name__} at {' > '.join(where)}"
    finally:
        signal.alarm(0)
    return None


def load_cases() -> ModuleType:
    """tests/fuzz/cases.py, which is in no package."""
    sys.path.append(str(ROOT / "tests" / "fuzz"))
    return importlib.import_module("cases")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Pillow warns about damaged metadata
    logging.disable()
    console.quiet = True  # what a replay or a detector prints
    sys.exit(main())
