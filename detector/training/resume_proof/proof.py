"""The proof, on one's own configuration, that a training which dies and goes on is the same training: what
tools/verify_resume.py does, with a few images of the data."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path

import yaml

from detector.config.schema import Config
from detector.data.coco import load_descriptor
from detector.training.optim import REFERENCE_BATCH

VAL_IMAGES = 8
MOST_SAID = 20  # differences


def _shortened(config: Config, directory: Path, steps: int, rng: random.Random) -> tuple[Config, int]:
    """The configuration for a few images of its data, written into `directory`, and its number of steps."""
    settings = config.train
    size = REFERENCE_BATCH if settings.batch_size == "auto" else settings.batch_size
    step = size * settings.accumulate
    descriptor = load_descriptor(config.data.dataset)
    splits = {}
    for name, count in (("train", -(-steps // 2) * step), ("val", VAL_IMAGES)):
        split = descriptor.split(name)
        subset = _subset(json.loads(split.annotations.read_text()), count, rng)
        file = directory / f"{name}.json"
        file.write_text(json.dumps(subset))
        splits[name] = {"images": str(split.images.resolve()), "annotations": str(file)}
        if name == "train":
            an_epoch = -(-len(subset["images"]) // step)
    data = directory / "data.yaml"
    data.write_text(yaml.safe_dump({"classes": descriptor.classes, **splits}))
    epochs = -(-steps // an_epoch)
    train = {
        "batch_size": size,
        "epochs": epochs,
        "log_every": 1,
        "eval_every": 1,
        "metric": "AP",
        "deterministic": True,
    }
    tree = config.model_dump()
    tree["data"]["dataset"] = str(data)
    tree["train"] |= train
    return Config.model_validate(tree), epochs * an_epoch


def _subset(coco: dict, count: int, rng: random.Random) -> dict:
    """The annotation file with at most `count` images: one of every category first, then at random."""
    of_image = defaultdict(list)
    for annotation in coco["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    images = rng.sample(coco["images"], len(coco["images"]))
    seen, first, rest = set(), [], []
    for image in images:
        new = {annotation["category_id"] for annotation in of_image[image["id"]]} - seen
        seen |= new
        (first if new else rest).append(image)
    chosen = (first + rest)[:count]
    return {**coco, "images": chosen, "annotations": [a for image in chosen for a in of_image[image["id"]]]}
