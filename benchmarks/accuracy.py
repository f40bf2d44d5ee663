"""What makes a detector more accurate in the same time: one change at a time beside max-IoU assignment.

    python benchmarks/accuracy.py --time             # first, on a quiet machine: what a step of each arm takes
    python benchmarks/accuracy.py [--datasets bccd aquarium shapes] [--seeds 3] [--arms ...] [--jobs 2]
    python benchmarks/accuracy.py --report           # the tables of all runs so far

An arm whose steps take longer gets fewer epochs, so that all arms of a dataset take the same time. `--time` measures
it: the arms load and train batches in turns in one process with one thread, as the runs have. Its medians are kept in
`seconds.json`. ablation.py says how the runs go on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ablation import FIGURES, key_of, mean_and_spread, points, run_all, train_once
from timing import milliseconds

from detector.config.file import load_config
from detector.training.engine import train_one_epoch
from detector.training.setup import prepare
from detector.utils.cli import run
from detector.utils.json_lines import read_json_lines

# Dataset → config, overrides and epochs of the baseline.
BUDGETS = {
    "bccd": (["configs/bccd.yaml", "train.precision=bf16"], 16),
    "aquarium": (["configs/aquarium.yaml", "train.precision=bf16"], 12),
    "shapes": (["configs/quickstart.yaml", "train.precision=bf16"], 12),
}
BASELINE = "max_iou"
ONE_ANCHOR = ["model.anchors.scales=1", "model.anchors.ratios=[1.0]"]
ATSS, TAL = ["loss.assigner.name=atss"], ["loss.assigner.name=tal"]
ARMS: dict[str, list[str]] = {
    BASELINE: [],
    "quality focal": ["loss.classification=quality_focal"],
    "atss": ATSS,
    "atss, one anchor": [*ATSS, *ONE_ANCHOR],
    "atss, quality focal": [*ATSS, "loss.classification=quality_focal"],
    "tal, quality focal, one anchor": [*TAL, "loss.classification=quality_focal", *ONE_ANCHOR],
    "ema": ["train.ema=0.998"],
    "mosaic": ["augment.mosaic=0.5"],
    "pafpn": ["model.neck.name=pafpn"],
    "light attention": ["model.attention.name=light"],
    "dyhead": ["model.attention={name: dyhead, blocks: 1}"],
    "from P2": ["model.neck.finest=p2"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--output", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--time", action="store_true", help="measure steps instead of training")
    parser.add_argument("--rounds", type=int, default=12, help="with --time: steps of each arm that are measured")
    parser.add_argument("--report", action="store_true", help="print the tables instead of training")
    args = parser.parse_args()
    timings, results = args.output / "seconds.json", args.output / "results.jsonl"
    if args.time:
        args.output.mkdir(parents=True, exist_ok=True)
        measured = {dataset: seconds_of_a_step(dataset, args.arms, args.rounds) for dataset in args.datasets}
        timings.write_text(json.dumps(measured, indent=1))
        return 0
    seconds = json.loads(timings.read_text())
    if args.report:
        report(read_json_lines(results), seconds)
        return 0
    wanted = itertools.product(range(args.seeds), dict.fromkeys(args.datasets), dict.fromkeys(args.arms))
    lines = [description(dataset, arm, seed, seconds[dataset]) for seed, dataset, arm in wanted]
    return run_all(lines, results, args.jobs, lambda line: train_once(line, args.output))


def seconds_of_a_step(dataset: str, arms: list[str], rounds: int) -> dict[str, float]:
    """Arm → median seconds of loading a batch and of training on it, all arms in turns."""
    torch.set_num_threads(1)
    times = milliseconds({arm: stepper(dataset, arm) for arm in arms}, rounds, torch.device("cpu"))
    medians = {arm: float(np.median(taken)) / 1000 for arm, taken in times.items()}
    for arm, median in medians.items():
        print(
            f"{dataset}: {arm:30s} {median:.3f} s a step, {median / medians[BASELINE]:.2f} of {BASELINE}'s", flush=True
        )
    return medians


def stepper(dataset: str, arm: str) -> Callable[[], object]:
    """A function that loads the next batch of a training and takes a step with it."""
    (config, *settings), _ = BUDGETS[dataset]
    prepared = prepare(load_config(config, [*settings, *ARMS[arm], "data.workers=0"]))
    training, epoch = prepared.training, iter(())

    def step() -> dict:
        nonlocal epoch
        record = next(epoch, None)
        if record is None:
            epoch = train_one_epoch(
                training.model, training.criterion, prepared.loader, training.optimizer, training.schedule,
                training.scaler, device=prepared.device, autocast=prepared.autocast,
                clip_norm=prepared.config.train.clip_norm,
            )  # fmt: skip
            record = next(epoch)
        return record

    return step


def description(dataset: str, arm: str, seed: int, seconds: dict[str, float]) -> dict:
    """What identifies a run; see ablation.py. seconds: of a step of each arm."""
    settings, epochs = BUDGETS[dataset]
    fitting = max(1, round(epochs * seconds[BASELINE] / seconds[arm]))
    budget = [*settings, f"train.epochs={fitting}"]
    return {"dataset": dataset, "arm": arm, "seed": seed, "changes": ARMS[arm], "budget": budget}


def report(lines: list[dict], seconds: dict[str, dict[str, float]]) -> None:
    """Print a table for each dataset: mean ± standard deviation over the seeds, and the change against the baseline's
    runs of the same seeds."""
    for dataset in BUDGETS:
        runs = {arm: runs_of(lines, dataset, arm, seconds.get(dataset, {})) for arm in ARMS}
        base = runs[BASELINE]
        figures = [figure for figure in FIGURES if base and figure in next(iter(base.values()))]
        print(f"\n{dataset}\n\n| | runs | s a step | epochs | {' | '.join(figures)} | AP, change | tail, change |")
        print("|---" * (len(figures) + 6) + "|")
        for arm, seeds in runs.items():
            if seeds:
                epochs = next(iter(seeds.values()))["budget"][-1].partition("=")[2]
                cells = [mean_and_spread(points(seeds, figure)) for figure in figures]
                paired = {seed: line for seed, line in seeds.items() if seed in base}
                cells += [mean_and_spread(points(paired, figure, base), sign="+") for figure in ("AP", "tail")]
                print(f"| {arm} | {len(seeds)} | {seconds[dataset][arm]:.2f} | {epochs} | {' | '.join(cells)} |")


def runs_of(lines: list[dict], dataset: str, arm: str, seconds: dict[str, float]) -> dict[int, dict]:
    """Seed → line of the runs with today's settings."""
    if arm not in seconds:
        return {}
    return {
        line["seed"]: line
        for line in lines
        if (line["dataset"], line["arm"]) == (dataset, arm)
        and key_of(line) == key_of(description(dataset, arm, line["seed"], seconds))
    }


if __name__ == "__main__":
    run(main)
