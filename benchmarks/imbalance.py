"""What helps rare classes: one change at a time beside plain focal loss with uniform sampling, and the best combined.

    python benchmarks/imbalance.py [--datasets shapes bccd] [--seeds 3] [--arms ...] [--jobs 2]
    python benchmarks/imbalance_report.py        # the tables and the picture of all runs so far

Every run on shapes or bccd fine-tunes one detector with `tools/train.py` and a small budget (BUDGETS). It is trained
first, on shapes of another seed, in which the rare shapes are one class. Its class logits are not used, but its
features tell shapes apart, as COCO's weights do for photos. A run's figures on val after the last epoch become one JSON
line in `results.jsonl`, and the run is not repeated: stop and restart this script as you like. `jobs` runs go on at a
time, each with one thread (the figures depend on the number of threads). Every arm gets its first seed before any gets
its second, so that an unfinished comparison is fair.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from pathlib import Path

from ablation import call, run_all, train_once

from detector.utils.cli import run

# The baselines with smaller images and fewer epochs; both use the network of the shapes.
BUDGETS = {
    "shapes": [
        "benchmarks/baseline/shapes.yaml", "data.image_size=160", "model.anchors.base_size=10", "train.epochs=5",
    ],
    "bccd": [
        "benchmarks/baseline/bccd.yaml", "data.image_size={short: 150, long: 200}", "model.anchors.base_size=10",
        "model.neck.channels=64", "model.head.width=64", "train.batch_size=8", "train.epochs=6",
        "train.lr=1.4e-3",  # 1e-3 in a step of 8, as when docs/imbalance.jsonl was measured
        "augment.transforms=[{name: HorizontalFlip, p: 0.5}, {name: VerticalFlip, p: 0.5}]",
    ],
}  # fmt: skip
FINE_TUNED = tuple(BUDGETS)  # from one detector, which is trained first
# Short and long trainings for `imbalance: auto`: shapes from scratch, the others from a detector of the shapes:
#   python tools/train.py benchmarks/baseline/shapes.yaml output_dir=runs/shapes
SMALL = ["benchmarks/baseline/shapes.yaml", "train.precision=bf16"]
AQUARIUM = [*SMALL, "data.dataset=datasets/aquarium.yaml", "data.image_size=224", "model.weights=runs/shapes"]
CELLS = [*BUDGETS["bccd"], "train.precision=bf16", "model.weights=runs/shapes"]
BUDGETS |= {
    "aquarium, 5 epochs": [*AQUARIUM, "train.epochs=5"],
    "aquarium, 20 epochs": [*AQUARIUM, "train.epochs=20"],
    "bccd, 6 epochs": CELLS,
    "bccd, 30 epochs": [*CELLS, "train.epochs=30"],
    "shapes, 5 epochs": [*SMALL, "data.image_size=160", "model.anchors.base_size=10", "train.epochs=5"],
    "shapes, 19 epochs": [*SMALL, "data.image_size=160", "model.anchors.base_size=10"],
}
START_IMAGES, RARE = 1500, ("crescent", "arrow", "diamond")
START = ["benchmarks/baseline/shapes.yaml", "data.image_size=160", "model.anchors.base_size=10", "train.epochs=14",
         "train.eval_every=14"]  # fmt: skip

# Arm → overrides. Each gamma has the best alpha of the focal loss paper (arXiv 1708.02002, tables 1a and 1b), which is
# what loss.alpha auto chooses, too. It is written out, so that a run is described by its changes alone.
ARMS = {
    "focal": [],
    "cross entropy": ["loss.classification=cross_entropy", "loss.alpha=null"],
    "cross entropy, alpha 0.75": ["loss.classification=cross_entropy", "loss.alpha=0.75"],
    "focal, gamma 0.5": ["loss.gamma=0.5", "loss.alpha=0.5"],
    "focal, gamma 1": ["loss.gamma=1.0", "loss.alpha=0.25"],
    "focal, gamma 5": ["loss.gamma=5.0", "loss.alpha=0.25"],
    "alpha by inverse frequency": ["loss.alpha=inverse_frequency"],
    "alpha by effective number": ["loss.alpha=effective_number"],
    "equalized focal": ["loss.classification=equalized_focal"],
    "quality focal": ["loss.classification=quality_focal"],
    "repeat factor": ["data.sampling=repeat_factor"],
    "paste": ["augment.paste={}"],
    "paste more": ["augment.paste={per_image: 2.0, max_factor: 30.0}"],
    "paste more, clone": ["augment.paste={per_image: 2.0, max_factor: 30.0, blend: clone}"],
    "class aware": ["data.sampling=class_aware"],
    "alpha, repeat factor": ["loss.alpha=effective_number", "data.sampling=repeat_factor"],
    "alpha, paste more": ["loss.alpha=effective_number", "augment.paste={per_image: 2.0, max_factor: 30.0}"],
    "alpha, repeat factor, paste two": [
        "loss.alpha=effective_number", "data.sampling=repeat_factor",
        "augment.paste={classes: [arrow, diamond], blend: clone}",
    ],
    "alpha, repeat factor, paste more": [
        "loss.alpha=effective_number", "data.sampling=repeat_factor",
        "augment.paste={per_image: 2.0, max_factor: 30.0}",
    ],
    "auto": ["imbalance=auto"],
}  # fmt: skip
BASELINE = "focal"
SHAPES_ONLY = ("alpha, repeat factor, paste two",)  # arms that name classes of shapes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=BUDGETS, default=FINE_TUNED)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--output", type=Path, default=Path("runs/imbalance"))
    args = parser.parse_args()
    start = start_detector(args.output / "start") if set(FINE_TUNED) & set(args.datasets) else None

    def train(line: dict) -> dict:
        weights = [f"model.weights={start.resolve()}"] if start and line["dataset"] in FINE_TUNED else []
        return train_once(line, args.output, weights)

    every = [description(*one) for one in wanted(args.datasets, args.arms, args.seeds)]
    return run_all(every, args.output / "results.jsonl", args.jobs, train)


def wanted(datasets: list[str], arms: list[str], seeds: int) -> list[tuple[str, str, int]]:
    """(dataset, arm, seed) of every run, in the order in which they are run."""
    every = itertools.product(range(seeds), dict.fromkeys(datasets), dict.fromkeys(arms))
    return [
        (dataset, arm, seed) for seed, dataset, arm in every if dataset.startswith("shapes") or arm not in SHAPES_ONLY
    ]


def description(dataset: str, arm: str, seed: int) -> dict:
    """What identifies a run; see ablation.py."""
    return {"dataset": dataset, "arm": arm, "seed": seed, "changes": ARMS[arm], "budget": BUDGETS[dataset]}


def start_detector(folder: Path) -> Path:
    """The run directory of the detector that runs on FINE_TUNED start from. It is trained if it does not exist."""
    directory = folder / "run"
    if not (directory / "eval/val/metrics.json").exists():
        shapes = (folder / "shapes").resolve()
        call(["datasets/make_shapes.py", "--seed", "1", "--train", str(START_IMAGES), "--out", str(shapes)])
        descriptor = ""
        for split in ("train", "val"):
            tree = json.loads((shapes / "annotations" / f"{split}.json").read_text())
            (shapes / f"start_{split}.json").write_text(json.dumps(renamed(tree)))
            descriptor += f"{split}: {{images: {split}, annotations: start_{split}.json}}\n"
        (shapes / "start.yaml").write_text(descriptor)
        print("training the detector to start from", flush=True)
        where = [f"data.dataset={shapes / 'start.yaml'}", f"output_dir={directory.resolve()}"]
        call(["tools/train.py", *START, *where, "--overwrite"])
    return directory


def renamed(tree: dict) -> dict:
    """A COCO tree in which every class has another name and the RARE ones are a single class."""
    old = {category["id"]: category["name"] for category in tree["categories"]}
    new = {name: 1 + min(k, len(old) - len(RARE)) for k, name in enumerate(sorted(old.values(), key=RARE.__contains__))}
    categories = [{"id": k, "name": f"kind {k}"} for k in sorted(set(new.values()))]
    annotations = [{**one, "category_id": new[old[one["category_id"]]]} for one in tree["annotations"]]
    return {**tree, "categories": categories, "annotations": annotations}


if __name__ == "__main__":
    run(main)
