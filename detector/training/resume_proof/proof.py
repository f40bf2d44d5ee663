"""The proof on a user's own configuration, with a few images of its data: what tools/verify_resume.py does."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from detector.config.schema import Config
from detector.data.descriptor import load_descriptor
from detector.inference.config_check import check_config
from detector.training.optim import REFERENCE_BATCH
from detector.training.resume_proof.differences import differences
from detector.training.resume_proof.processes import train_interrupted, train_uninterrupted, write_config
from detector.utils.console import console
from detector.utils.text import counted

VAL_IMAGES = 8
MOST_PRINTED = 20  # differences


def verify(config: Config, directory: Path, *, steps: int, kills: int, seed: int) -> bool:
    """Train about `steps` steps in `directory`, once without interruption and once killed `kills` times and resumed.

    Prints what happens. Returns whether both runs are the same. Raises InputError, and RuntimeError if a training fails
    by itself.
    """
    check_config(config)
    rng = random.Random(seed)
    small, count = _short_training(config, directory, steps, rng)
    log = directory / "console.txt"
    console.print(f"two trainings of {counted(count, 'step')}, with train.deterministic=true; in {directory}")
    seconds = train_uninterrupted(write_config(small, directory / "whole.yaml"), log)
    console.print(f"  without interruption: {seconds:.0f} s")
    saving_often = write_config(small, directory / "parts.yaml", {"train.save_every": max(1, count // 5)})
    done = train_interrupted(saving_often, log, kills=kills, steps=count, seconds=seconds, rng=rng)
    steps_at_kill = ", ".join(map(str, done.steps)) or "none"
    kills_done = f"{counted(done.kills, 'time')}, {done.while_saving} while saving"
    console.print(f"  killed {kills_done}; at steps: {steps_at_kill}")
    found = differences(directory / "whole", directory / "parts")
    for line in found[:MOST_PRINTED]:
        console.print(f"  differs: {line}")
    same = "weights, average, optimizer, generators, records, figures and best checkpoint are the same, bit for bit"
    console.print(f"NOT THE SAME: {counted(len(found), 'difference')}" if found else f"the same: {same}")
    return not found


def _short_training(config: Config, directory: Path, steps: int, rng: random.Random) -> tuple[Config, int]:
    """The configuration of a training of about `steps` steps on a few images of its data, and its number of steps.

    The data's annotation files are written into `directory`.
    """
    batch_size = REFERENCE_BATCH if config.train.batch_size == "auto" else config.train.batch_size
    images_per_step = batch_size * config.train.accumulate
    descriptor = load_descriptor(config.data.dataset)
    # two epochs, unless the data has fewer images
    wanted = {"train": ceil(steps / 2) * images_per_step, "val": VAL_IMAGES}
    splits, images = {}, {}
    for name, count in wanted.items():
        split = descriptor.split(name)
        subset = _subset(json.loads(split.annotations.read_text()), count, rng)
        file, images[name] = directory / f"{name}.json", len(subset["images"])
        file.write_text(json.dumps(subset))
        splits[name] = {"images": str(split.images.resolve()), "annotations": str(file)}
    data = directory / "data.yaml"
    data.write_text(yaml.safe_dump({"classes": descriptor.classes, **splits}))
    steps_per_epoch = ceil(images["train"] / images_per_step)
    epochs = ceil(steps / steps_per_epoch)
    changes = {
        "data.dataset": str(data),
        "train.batch_size": batch_size,
        "train.epochs": epochs,
        "train.log_every": 1,
        "train.eval_every": 1,
        "train.metric": "AP",
        "train.deterministic": True,
    }
    return config.changed(changes), epochs * steps_per_epoch


def _subset(coco: dict[str, Any], count: int, rng: random.Random) -> dict[str, Any]:
    """The annotation file with at most `count` images: first one of every category, then random ones."""
    of_image: dict[Any, list[dict]] = defaultdict(list)
    for annotation in coco["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    images = rng.sample(coco["images"], len(coco["images"]))
    seen: set[Any] = set()
    first: list[dict] = []
    rest: list[dict] = []
    for image in images:
        new = {annotation["category_id"] for annotation in of_image[image["id"]]} - seen
        seen |= new
        (first if new else rest).append(image)
    chosen = (first + rest)[:count]
    return {**coco, "images": chosen, "annotations": [a for image in chosen for a in of_image[image["id"]]]}
