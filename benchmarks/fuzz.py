"""10,000 broken files of each kind (annotations, YAML, images, checkpoints): every one gives an answer or a clear line.

    python benchmarks/fuzz.py [--kinds json yaml image checkpoint] [--cases 10000] [--seed 0] [--keep out/fuzz]

A case fails if it raises anything but InputError, says what a terminal would obey, or takes more than DEADLINE seconds;
a kind, if its process held more than 2 GB. A line a kind: cases, failures, longest case, most memory. The first file of
each distinct failure is kept. Exit code 1 where anything failed.
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
from pathlib import Path

import hypothesis.strategies
import torch

from detector.utils.memory import peak_memory

ROOT = Path(__file__).parents[1]
KINDS = ("json", "yaml", "image", "checkpoint")
DEADLINE = 10  # seconds a case, on a busy machine
MOST_MEMORY = 2e9  # bytes
ROUND = 250  # cases, after which hypothesis begins anew: it keeps what it draws, 200 kB of a checkpoint


class TooLong(BaseException):  # so that nothing on the way takes it for a decoder's mistake
    pass


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
    for kind in args.kinds:  # a process each, whose memory is that kind's
        same = ["--cases", str(args.cases), "--seed", str(args.seed), "--keep", str(args.keep)]
        codes.append(subprocess.run([sys.executable, __file__, "--kinds", kind, *same], check=False).returncode)
        if codes[-1] not in (0, 1):
            print(f"{kind}: the process died with {codes[-1]}; its last file is {args.keep / f'{kind}.last'}")
    return int(any(codes))


def run(kind: str, cases: int, seed: int, keep: Path) -> int:
    """Run the cases of a kind; print its line."""
    module = load_cases()
    keep.mkdir(parents=True, exist_ok=True)
    failures: dict[str, int] = {}
    done, longest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        check = getattr(module.Checks(Path(folder) / "files"), kind)

        def every(content: bytes) -> None:
            nonlocal done, longest
            (keep / f"{kind}.last").write_bytes(content)  # to be found where the process itself dies
            began = time.perf_counter()
            place = failure_of(check, content)
            took = time.perf_counter() - began
            done, longest = done + 1, max(longest, took)
            if place is None and took > DEADLINE:  # the alarm came where Python passes over exceptions
                place = f"more than {DEADLINE} s"
            if place is not None:
                if place not in failures:
                    (keep / f"{kind}.{len(failures)}").write_bytes(content)
                    print(f"{kind}: {place} ({keep / f'{kind}.{len(failures)}'})", flush=True)
                failures[place] = failures.get(place, 0) + 1

        for begin in range(0, cases, ROUND):
            draw(module.KINDS[kind](), every, min(ROUND, cases - begin), seed=seed * 1_000_000 + begin)
    peak = peak_memory(torch.device("cpu"))
    failed = sum(failures.values())
    print(
        f"{kind}: {done} cases, {failed} failures ({len(failures)} distinct), longest {longest:.2f} s, "
        f"most memory {peak / 1e9:.2f} GB",
        flush=True,
    )
    return int(failed > 0 or peak > MOST_MEMORY)


def draw(files: hypothesis.strategies.SearchStrategy[bytes], use, count: int, seed: int) -> None:
    """Call `use` with so many of the files."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(files)
    def each(content: bytes) -> None:
        use(content)

    each()


def failure_of(check, content: bytes) -> str | None:
    """What went wrong and where, or None."""

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


def load_cases():
    """tests/fuzz/cases.py, which is in no package."""
    sys.path.append(str(ROOT / "tests" / "fuzz"))
    return importlib.import_module("cases")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
    logging.disable()
    sys.exit(main())
