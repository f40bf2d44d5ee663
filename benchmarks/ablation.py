"""What the ablations share: runs of `tools/train.py`, a JSON line for each, and tables of them.

A line is never repeated: stop and restart an ablation as you like. Each run has one thread, because the figures depend
on the number of threads. Every arm gets its first seed before any gets its second, so that an unfinished comparison is
fair.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from detector.data.class_groups import GROUPS
from detector.utils.json_lines import read_json_lines

PROJECT = Path(__file__).parent.parent
FIGURES = ("AP", "AP50", *GROUPS)
DESCRIPTION = ("dataset", "arm", "seed", "changes", "budget")  # what identifies a run: the first part of its line


def key_of(line: Mapping) -> str:
    """The description in a line, to compare."""
    return json.dumps([line[key] for key in DESCRIPTION])


def run_all(wanted: Sequence[dict], results: Path, jobs: int, train: Callable[[dict], dict]) -> int:
    """Train what is `wanted` (descriptions) and not yet in the file `results`, `jobs` at a time; each adds a line.

    train: description → the run's whole line. Returns 1 if a run failed, else 0.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    done = {key_of(line) for line in read_json_lines(results)}
    left = [one for one in wanted if key_of(one) not in done]
    print(f"{len(left)} runs are not yet in {results}", flush=True)
    pool, failed = ThreadPoolExecutor(jobs), 0
    try:
        running = {pool.submit(train, one): one for one in left}
        for number, ended in enumerate(as_completed(running), start=1):
            name = " ".join(str(running[ended][key]) for key in ("dataset", "arm", "seed"))
            problem = ended.exception()
            failed += problem is not None
            if problem is None:
                line = ended.result()
                with results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                problem = f"AP {line['AP']:.3f} in {line['seconds']} s"
            print(f"{number}/{len(left)} {name}: {problem}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return min(failed, 1)


def train_once(line: dict, output: Path, extra: Sequence[str] = ()) -> dict:
    """Train with `extra` and the overrides of the line on top of its config, the first of its budget. The run's whole
    line."""
    directory = output / line["dataset"] / line["arm"].replace(",", "").replace(" ", "-") / str(line["seed"])
    config, *budget = line["budget"]
    settings = [config, *extra, *budget, *line["changes"], f"seed={line['seed']}"]
    settings += ["data.workers=1", "train.eval_every=1000", f"output_dir={directory.resolve()}", "--overwrite"]
    began = time.time()
    call(["tools/train.py", *settings], OMP_NUM_THREADS="1")
    metrics = json.loads((directory / "eval/val/metrics.json").read_text())
    shutil.rmtree(directory / "checkpoints")  # 140 MB
    figures = {"AP": metrics["AP"], "AP50": metrics["AP50"]}
    figures |= {group: row["AP"] for group, row in metrics["groups"].items()}
    figures |= {"per_class": {name: row["AP"] for name, row in metrics["per_class"].items()}}
    return {**line, **figures, "seconds": round(time.time() - began)}


def call(command: list[str], **environment: str) -> None:
    """Run one of the project's scripts, quietly. Raises RuntimeError with the end of its output if it fails."""
    ended = subprocess.run(
        [sys.executable, *command], cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")


def points(runs: dict[int, dict], figure: str, against: dict[int, dict] | None = None) -> np.ndarray:
    """A figure of an arm's runs in AP points (1 = 0.01 AP), minus that of the runs `against` with the same seeds."""
    return np.array([100 * (run[figure] - (against[seed][figure] if against else 0)) for seed, run in runs.items()])


def mean_and_spread(values: np.ndarray, sign: str = "") -> str:
    """Mean ± standard deviation of a sample. A single value has no deviation."""
    return f"{values.mean():{sign}.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")
