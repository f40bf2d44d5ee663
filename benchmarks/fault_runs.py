"""What benchmarks/faults.py trains: small configurations on a data set of a few images."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from detector import checkpoint
from detector.config.file import validate
from detector.training.resume_proof.processes import train_uninterrupted, write_config
from detector.utils.errors import InputError

BASE = {
    "data": {"image_size": 64, "workers": 0},
    "augment": {"transforms": "light"},
    "model": {"backbone": {"name": "timm/test_resnet.r160_in1k", "weights": None, "norm": "batch"},
              "neck": {"channels": 16}, "head": {"depth": 1, "width": 16}, "anchors": {"base_size": 16},
              "postprocess": {"score_threshold": 0.0}},
    "train": {"epochs": 2, "batch_size": 2, "lr": 0.01, "precision": "fp32", "warmup_steps": 2, "log_every": 1,
              "save_every": 2, "keep": 1},
    "device": "cpu",
}  # fmt: skip
CONFIGS = {
    "plain": [],
    "accumulation, 2 workers": ["train.accumulate=2", "data.workers=2"],
    # a larger network, whose checkpoints take long to write
    "average, adamw, light attention": [
        "train.ema=0.9", "train.optimizer=adamw", "model.backbone.name=resnet18", "model.attention.name=light",
    ],
    "equalized focal, atss": [
        "loss.classification=equalized_focal", "loss.assigner.name=atss", "data.workers=2", "data.sampling=class_aware",
    ],
    "quality focal, tal": ["loss.classification=quality_focal", "loss.assigner.name=tal"],
    "adaptive focal, pasting": ["loss.classification=adaptive_focal", "augment.paste={classes: [dark]}"],
    "dyhead, pafpn": ["model.attention.name=dyhead", "model.neck.name=pafpn"],
    "bf16, average, 2 workers": ["train.precision=bf16", "train.ema=0.9", "data.workers=2"],
    "mosaic, frozen at first": [
        "augment.mosaic=0.5", "augment.mixup=0.5", "train.freeze=[backbone]", "train.unfreeze={backbone.layer4: 2}",
    ],
}  # fmt: skip
LAST = "checkpoints/last.pt"


def uninterrupted(output: Path, name: str) -> tuple[Path, float]:
    """The run directory of the training of CONFIGS[name] without interruption, and its duration in seconds.

    It is trained on the first call.
    """
    run = output / "whole" / "".join(c if c.isalnum() else "_" for c in name)
    duration = run.with_suffix(".seconds")
    if not duration.exists():
        if not (output / "data/tiny.yaml").exists():
            make_data(output / "data")
        tree = {**BASE, "data": {**BASE["data"], "dataset": str(output / "data/tiny.yaml")}}
        emptied(run).parent.mkdir(exist_ok=True)
        config = validate(yaml.safe_load(yaml.safe_dump(tree)), name, CONFIGS[name])
        config = write_config(config, run.with_suffix(".yaml"))
        duration.write_text(str(train_uninterrupted(config, output / "console.txt")))
    return run, float(duration.read_text())


def emptied(directory: Path) -> Path:
    """The path, after removing what is there."""
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def step_of(last: Path) -> int:
    """The optimizer step of the newest checkpoint that is not damaged; -1 if there is none."""
    for _ in range(3):  # a training that goes on may just be renaming the files
        with suppress(IndexError, InputError, OSError):
            return checkpoint.load_newest(last)[0]["progress"]["step"]
    return -1


def make_data(folder: Path) -> None:
    """Write images of 64x48 with a bright square each, and a dark one in every third; `tiny.yaml` describes them."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        (folder / split).mkdir(parents=True)
        coco = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "light"}, {"id": 3, "name": "dark"}]}
        for i in range(count):
            image = rng.integers(100, 140, (48, 64, 3), dtype=np.uint8)
            coco["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 48})
            for category, value, left in ((7, 255, 0), (3, 0, 32))[: 1 + (i % 3 == 0)]:
                x, y = int(rng.integers(left, left + 12)), int(rng.integers(0, 28))
                image[y : y + 20, x : x + 20] = value
                box = {"id": len(coco["annotations"]), "image_id": i, "category_id": category, "iscrowd": 0}
                coco["annotations"].append(box | {"bbox": [x, y, 20, 20], "area": 400})
            Image.fromarray(image).save(folder / split / f"{i}.png")
        (folder / f"{split}.json").write_text(json.dumps(coco))
    splits = {split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(splits))
