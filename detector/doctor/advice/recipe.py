"""The part of the advice that is chosen first: image size, augmentation, network and schedule, for the device at hand.

Two recipes: on a GPU the detector published for COCO is fine-tuned, as in configs/finetune.yaml; on a CPU a small one
is trained from scratch, as in configs/bccd.yaml, whose measured time and figures the constants below are made of. What
they are scaled by is the data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import ks_2samp, spearmanr

from detector.config.file import validate
from detector.config.schema import Config, ShortLong
from detector.data.coco import CocoData
from detector.data.transforms import fed_size

MULTIPLE = 32  # sides are rounded to this: what batches are padded to
ENOUGH = 10  # boxes of a class for its median size to count
# Pixels that the median object of the class with the smallest ones should have, and the long sides to choose from.
CPU_OBJECT, CPU_LEAST, CPU_MOST = 20, 256, 512
GPU_OBJECT, GPU_LEAST, GPU_MOST = 32, 800, 1344
CPU_PIXELS = 1.1e9  # fed in a training: 70 epochs of BCCD's 205 images of 240x320
CPU_SPEED = 1.2e6  # pixels a second, of 2 cores
UPRIGHT = 0.05  # differences between above and below that are not to be told from none
UPRIGHT_BOXES = 1000  # the fewest boxes that can show that
TALL = 0.1  # of log(height / width): no taller than wide


@dataclass(frozen=True)
class Setting:
    """A setting, its value, and why."""

    path: str  # dotted, as in an override: data.image_size; augment.transforms[0] is an entry of a list
    value: Any  # of YAML's types
    reason: str  # without a line break


def recipe(dataset: str, train: CocoData, gpu: bool) -> list[Setting]:
    """Settings for training on `train`, but for those of anchors and imbalance.

    dataset: the descriptor, as the user wrote it. Raises InputError where the split has no image.
    """
    size, why = choose_size(train, gpu)
    return [
        Setting("data.dataset", dataset, "what was examined; relative to the folder that training is started in"),
        Setting("data.image_size", size, why),
        *_augmentation(train),
        *(_gpu(train) if gpu else _cpu(train, size)),
    ]


def configured(settings: list[Setting]) -> Config:
    """The configuration that the settings make of the defaults."""
    return validate(as_tree(settings), "the advice")


def as_tree(settings: list[Setting]) -> dict:
    """Nested, as in a file."""
    tree: dict = {}
    for setting in settings:
        *parents, leaf = setting.path.split(".")
        place = tree
        for key in parents:
            place = place.setdefault(key, {})
        name, entry, _ = leaf.partition("[")
        if entry:
            place.setdefault(name, []).append(setting.value)
        else:
            place[name] = setting.value
    return tree


def choose_size(train: CocoData, gpu: bool) -> tuple[dict[str, int], str]:
    """data.image_size as {short, long}, and why: from the smallest objects, the images, and what the device can do."""
    target, least, most = (GPU_OBJECT, GPU_LEAST, GPU_MOST) if gpu else (CPU_OBJECT, CPU_LEAST, CPU_MOST)
    sides = np.stack([train.heights, train.widths])
    long = float(np.median(sides.max(axis=0)))
    shape = float(np.median(sides.min(axis=0) / sides.max(axis=0)))
    name, median = _smallest_class(train)
    if name is None:
        wanted, why = least, f"no object to go by; {least} px is little work"
    else:
        wanted = long * target / median
        why = f"{name} has the smallest objects, {median:.0f} px of the images' {long:.0f}: at this size "
    top = min(most, long * (2 if gpu else 1))  # enlarged, a photo shows no more, but fits what weights have learnt
    chosen = min(max(wanted, least), top)
    side = min(max(MULTIPLE, round(chosen / MULTIPLE) * MULTIPLE), max(MULTIPLE, round(top)))
    if name is not None:
        why += f"{median * side / long:.0f} px"
        if wanted > top:
            device = "a GPU" if gpu else "a CPU"
            limit = "the images have no more" if top < most else f"{most} is the most that {device} is good for"
            why += f", fewer than the {target} wanted ({limit})"
        elif wanted < least:
            why += f", more than the {target} wanted ({least} is little work)"
    return {"short": max(1, round(side * shape)), "long": side}, why


def _smallest_class(train: CocoData) -> tuple[str | None, float]:
    """The class whose median object is the smallest, and that median of sqrt(w * h), pixels of the file."""
    sides = np.sqrt(train.boxes[:, 2] * train.boxes[:, 3])
    counts = train.class_counts()
    enough = min(ENOUGH, counts.max())
    medians = {k: float(np.median(sides[(train.labels == k) & ~train.iscrowd])) for k in np.flatnonzero(counts)}
    medians = {k: size for k, size in medians.items() if counts[k] >= enough}
    if not medians:
        return None, 0.0
    k = min(medians, key=medians.get)
    return train.class_names[k], medians[k]


def _augmentation(train: CocoData) -> list[Setting]:
    facts = no_up_and_down(train)
    if facts is None:
        why = "mirroring, scale and colour; no vertical flips: the objects show no sign that up and down are alike"
        return [Setting("augment.transforms", "light", why)]
    jitter = {"scale": [0.8, 1.25], "translate_percent": [-0.1, 0.1]}
    colour = {"brightness_limit": 0.2, "contrast_limit": 0.2}
    return [
        Setting(
            "augment.transforms[0]", {"name": "HorizontalFlip", "p": 0.5}, "doubles the views; not where left matters"
        ),
        Setting("augment.transforms[1]", {"name": "VerticalFlip", "p": 0.5}, f"{facts}; remove it where up matters"),
        Setting(
            "augment.transforms[2]",
            {"name": "Affine", **jitter, "p": 0.7},
            "other sizes and places of the same objects",
        ),
        Setting("augment.transforms[3]", {"name": "RandomBrightnessContrast", **colour, "p": 0.5}, "other light"),
    ]


def no_up_and_down(train: CocoData) -> str | None:
    """Why the images seem to have no up and down, or None where they may have.

    A camera that looks along the ground sees other things, and larger ones, below than above, and what stands is taller
    than wide. Where none of that shows in at least UPRIGHT_BOXES boxes, the camera looked straight down (microscope,
    drone, conveyor), or at what lies as it fell.
    """
    kept = ~train.iscrowd
    boxes, labels = train.boxes[kept], train.labels[kept]
    if len(boxes) < UPRIGHT_BOXES:
        return None
    heights = train.heights[np.repeat(np.arange(len(train)), np.diff(train.first))[kept]]
    y = (boxes[:, 1] + boxes[:, 3] / 2) / heights
    place = float(ks_2samp(y, 1 - y).statistic)
    size = float(spearmanr(boxes[:, 2] * boxes[:, 3], y).statistic)
    means = [abs(float(y[labels == k].mean()) - 0.5) for k in np.flatnonzero(np.bincount(labels) >= 100)]
    tall = abs(float(np.median(np.log(boxes[:, 3] / boxes[:, 2]))))
    if not (place < UPRIGHT and abs(size) < UPRIGHT and max(means, default=0) < UPRIGHT and tall < TALL):
        return None
    return (
        f"the objects know no up and down: as many above as below (they differ by {place:.1%}), as large "
        f"(correlation {size:.2f}), no taller than wide"
    )


def _cpu(train: CocoData, size: dict[str, int]) -> list[Setting]:
    pixels = _pixels_an_epoch(train, size)
    epochs = int(np.clip(round(CPU_PIXELS / pixels), 10, 150))
    batch = 4 if len(train) < 500 else 8
    every = max(1, epochs // 7)
    steps, minutes = epochs * -(-len(train) // batch), epochs * pixels / CPU_SPEED / 60
    return [
        Setting("model.backbone", {"name": "resnet18", "weights": None, "norm": "batch"},
                "no GPU here: the smallest ResNet, from scratch; weights: DEFAULT starts from ImageNet (a download)"),
        Setting("model.neck", {"channels": 128}, "half of the usual: a quarter of the work"),
        Setting("model.head", {"depth": 2, "width": 128, "norm": "group"}, "likewise; norms make small batches train"),
        Setting("loss.box", "giou", "goes by the overlap, as AP does"),
        Setting("train.epochs", epochs,
                f"{steps} steps, about {_duration(minutes)} on 2 CPU cores for {len(train)} images"),
        Setting("train.batch_size", batch,
                "few images: many small steps learn more than few large ones" if batch == 4 else
                f"{len(train)} images make enough steps of 8"),
        Setting("train.optimizer", "adamw", "its learning rate depends little on the data"),
        Setting("train.lr", 2e-3, f"for 16 images, scaled to the batch: {2e-3 * batch / 16:g} for {batch}"),
        Setting("train.weight_decay", 0.05, "usual with adamw; few images are easily learnt by heart"),
        Setting("train.schedule", "cosine", "ends at zero: no milestones to choose"),
        Setting("train.warmup_steps", min(200, steps // 10), "all weights start at random"),
        Setting("train.clip_norm", 10, "one odd image or box cannot throw the weights far"),
        Setting("train.eval_every", every, f"{-(-epochs // every)} times in a training; the best one is kept"),
    ]  # fmt: skip


def _gpu(train: CocoData) -> list[Setting]:
    few = len(train) < 2000
    epochs = 36 if few else 24 if len(train) < 10_000 else 12
    batch = 8 if few else 16
    return [
        Setting("data.workers", min(8, os.cpu_count() or 1), "one for each CPU core here, up to what a GPU can use"),
        Setting("model.weights", "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1",
                f"{len(train)} images do not teach what COCO's 118,000 do; a download of 146 MB at first"),
        Setting("model.backbone", {"norm": "frozen"}, f"statistics of {batch} images would be noise; COCO's are good"),
        Setting("model.neck", {"extra_levels": "c5"}, "as these weights have it"),
        Setting("model.head", {"norm": "group"}, "as these weights have it"),
        Setting("loss.box", "giou", "what these weights were trained with"),
        Setting("train.epochs", epochs,
                f"{epochs * -(-len(train) // batch)} steps for {len(train)} images; patience ends it earlier"),
        Setting("train.batch_size", batch, "what a GPU's memory does not hold is computed in parts, to equal effect"),
        Setting("train.optimizer", "adamw", "its learning rate depends little on the data"),
        Setting("train.lr", 4e-4, f"for 16 images, scaled to the batch: {4e-4 * batch / 16:g} for {batch}"),
        Setting("train.backbone_lr_factor", 0.1, "the backbone has seen more images than these: small steps keep it"),
        Setting("train.freeze", ["backbone.stem", "backbone.layer1"], "edges and colours are the same everywhere"),
        Setting("train.schedule", "cosine", "ends at zero: no milestones to choose"),
        Setting("train.warmup_steps", 100, "new rows of the head start at random"),
        Setting("train.clip_norm", 1.0, "one odd image or box cannot throw the weights far"),
        Setting("train.ema", 0.999, "an average of the weights is better and steadier on few images"),
        Setting("train.patience", max(4, epochs // 3), "epochs without a better AP: a third of the training"),
    ]  # fmt: skip


def _pixels_an_epoch(train: CocoData, size: dict[str, int]) -> float:
    """Of all images as fed, without padding."""
    shapes, counts = np.unique(np.stack([train.heights, train.widths], axis=1), axis=0, return_counts=True)
    fed = np.array([fed_size(shape, ShortLong(**size)) for shape in shapes.tolist()], float)
    return float((fed.prod(axis=1) * counts).sum())


def _duration(minutes: float) -> str:
    return f"{max(1, minutes):.0f} minutes" if minutes < 100 else f"{minutes / 60:.0f} hours"
