"""What makes a detector more accurate in the same time: one change at a time beside RetinaNet, and the configs.

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
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from ablation import FIGURES, key_of, mean_and_spread, points, run_all, train_once
from timing import milliseconds

from detector.config.file import load_config
from detector.training.engine import train_one_epoch
from detector.training.setup import prepare
from detector.utils.cli import run
from detector.utils.errors import InputError
from detector.utils.json_lines import read_json_lines

EPOCHS = {"bccd": 16, "aquarium": 8, "shapes": 11}  # of the baseline, which is benchmarks/baseline/DATASET.yaml
CONFIGS = {"bccd": "configs/bccd.yaml", "aquarium": "configs/aquarium.yaml", "shapes": "configs/quickstart.yaml"}
COMMON = ["device=cpu", "train.precision=bf16"]
BASELINE, DEFAULT = "max_iou", "the config"  # DEFAULT: what the project recommends, instead of the baseline
QUALITY = "loss.classification=quality_focal"
ATSS, TAL = ["loss.assigner.name=atss"], ["loss.assigner.name=tal"]
ONE_ANCHOR = ["model.anchors.scales=1", "model.anchors.ratios=[1.0]", "model.anchors.base_size=32"]
ARMS: dict[str, list[str]] = {  # arm → overrides of the baseline
    BASELINE: [],
    "quality focal": [QUALITY],
    "box weight 2": ["loss.box_weight=2"],
    "ema": ["train.ema=0.998"],
    "atss": ATSS,
    "atss, one anchor": [*ATSS, *ONE_ANCHOR],
    "atss, one anchor, quality focal": [*ATSS, *ONE_ANCHOR, QUALITY],
    "tal, one anchor, quality focal": [*TAL, *ONE_ANCHOR, QUALITY],
    "light attention": ["model.attention.name=light"],
    "dyhead": ["model.attention={name: dyhead, blocks: 1}"],
    "pafpn": ["model.neck.name=pafpn"],
    "mosaic": ["augment.mosaic=0.5"],
    DEFAULT: [],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=EPOCHS, default=list(EPOCHS))
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
        measure(args.datasets, args.rounds, timings)
        return 0
    if not timings.exists():
        raise InputError(f"{timings}: not found; run this script with --time first")
    seconds = json.loads(timings.read_text())
    if args.report:
        report(read_json_lines(results), seconds)
        return 0
    wanted = itertools.product(range(args.seeds), dict.fromkeys(args.datasets), dict.fromkeys(args.arms))
    lines = [description(dataset, arm, seed, seconds[dataset]) for seed, dataset, arm in wanted]
    return run_all(lines, results, args.jobs, lambda line: train_once(line, args.output))


def measure(datasets: list[str], rounds: int, timings: Path) -> None:
    """Measure a step of every arm and write it to the file `timings`: dataset → arm → seconds. What it says of other
    datasets stays."""
    seconds = json.loads(timings.read_text()) if timings.exists() else {}
    torch.set_num_threads(1)
    for dataset in datasets:
        steps = {arm: stepper(dataset, arm) for arm in ARMS}
        taken = milliseconds(steps, rounds, torch.device("cpu"))
        seconds[dataset] = {arm: float(np.median(times)) / 1000 for arm, times in taken.items()}
        for arm, median in seconds[dataset].items():
            print(
                f"{dataset}: {arm:32s} {median:.3f} s a step, {median / seconds[dataset][BASELINE]:.2f} of {BASELINE}'s"
            )
        timings.parent.mkdir(parents=True, exist_ok=True)
        timings.write_text(json.dumps(seconds, indent=1))


def stepper(dataset: str, arm: str) -> Callable[[], dict]:
    """A function that loads the next batch of a training and takes a step with it."""
    prepared = prepare(load_config(config_of(dataset, arm), [*COMMON, *ARMS[arm], "data.workers=0"]))
    training, settings = prepared.training, prepared.config.train

    def steps() -> Iterator[dict]:
        while True:
            for record in train_one_epoch(
                training.model, training.criterion, prepared.loader, training.optimizer, training.schedule,
                training.scaler, device=prepared.device, autocast=prepared.autocast, clip_norm=settings.clip_norm,
            ):  # fmt: skip
                if training.ema:
                    training.ema.update_parameters(training.model)
                yield record

    return steps().__next__


def config_of(dataset: str, arm: str) -> str:
    return CONFIGS[dataset] if arm == DEFAULT else f"benchmarks/baseline/{dataset}.yaml"


def epochs_of(dataset: str, arm: str, seconds: dict[str, float]) -> int:
    """As many as take the time of the baseline's. seconds: of a step of each arm."""
    return max(1, round(EPOCHS[dataset] * seconds[BASELINE] / seconds[arm]))


def description(dataset: str, arm: str, seed: int, seconds: dict[str, float]) -> dict:
    """What identifies a run; see ablation.py. seconds: of a step of each arm."""
    budget = [config_of(dataset, arm), *COMMON, f"train.epochs={epochs_of(dataset, arm, seconds)}"]
    return {"dataset": dataset, "arm": arm, "seed": seed, "changes": ARMS[arm], "budget": budget}


def report(lines: list[dict], seconds: dict[str, dict[str, float]]) -> None:
    """Print a table for each dataset that the baseline has run on."""
    for dataset, of_arms in seconds.items():
        runs = {arm: runs_of(lines, dataset, arm, of_arms) for arm in ARMS}
        if runs[BASELINE]:
            print(f"\n{dataset}\n\n" + "\n".join(table(dataset, runs, of_arms)))


def table(dataset: str, runs: dict[str, dict[int, dict]], seconds: dict[str, float]) -> list[str]:
    """Markdown, a row for each arm: mean ± standard deviation over the seeds, and the change against the baseline's
    runs of the same seeds. runs: arm → seed → line. seconds: of a step of each arm."""
    base = runs[BASELINE]
    figures = [figure for figure in FIGURES if figure in next(iter(base.values()))]
    head = ["", "runs", "s a step", "epochs", *figures, "AP, change", "tail, change"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for arm, seeds in runs.items():
        paired = {seed: line for seed, line in seeds.items() if seed in base}
        if paired:
            cells = [arm, str(len(paired)), f"{seconds[arm]:.2f}", str(epochs_of(dataset, arm, seconds))]
            cells += [mean_and_spread(points(paired, figure)) for figure in figures]
            changes = [mean_and_spread(points(paired, figure, base), sign="+") for figure in ("AP", "tail")]
            lines.append(f"| {' | '.join(cells + (changes if arm != BASELINE else ['', '']))} |")
    return lines


def runs_of(lines: list[dict], dataset: str, arm: str, seconds: dict[str, float]) -> dict[int, dict]:
    """Seed → line of the runs with today's settings."""
    return {
        line["seed"]: line
        for line in lines
        if (line["dataset"], line["arm"]) == (dataset, arm)
        and key_of(line) == key_of(description(dataset, arm, line["seed"], seconds))
    }


if __name__ == "__main__":
    run(main)
