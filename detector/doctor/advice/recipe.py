"""The recipe for a dataset: image size, augmentation, network and schedule, for the device at hand.

On a GPU the detector published for COCO is fine-tuned, as in configs/finetune.yaml. On a CPU a small detector is
trained from scratch, as in configs/bccd.yaml, whose measured time and figures give the constants below.
"""

from __future__ import annotations

import os

import numpy as np

from detector.config.data import ShortLong
from detector.config.train import TrainConfig
from detector.data.coco import CocoData
from detector.data.transforms import fed_size
from detector.doctor.advice.augmentation import choose_augmentation
from detector.doctor.advice.image_size import choose_image_size
from detector.doctor.advice.setting import Setting
from detector.training.optim import scaled_lr
from detector.utils.text import counted

CPU_PIXELS = 1.1e9  # in a whole training: 70 epochs of BCCD's 205 images of 240x320
CPU_SPEED = 1.2e6  # pixels a second, trained on 2 cores


def recipe(dataset: str, train: CocoData, gpu: bool, enlarged: Setting | None = None) -> list[Setting]:
    """Settings to train on `train`, except those of anchors and imbalance.

    dataset: path of the descriptor, as the user wrote it. enlarged: another image size than `choose_image_size` gives;
    an enlarged image takes longer, and is seen as often. Raises InputError if the split has no image.
    """
    size, why = choose_image_size(train, gpu)
    image_size = enlarged or Setting("data.image_size", size, why)
    return [
        Setting("data.dataset", dataset, "the dataset examined; relative to the folder that training is started in"),
        image_size,
        *choose_augmentation(train),
        *(_gpu(train) if gpu else _cpu(train, size, image_size.value)),
    ]


def _cpu(train: CocoData, size: dict[str, int], fed: dict[str, int]) -> list[Setting]:
    """size: which sets the number of epochs. fed: which sets the time they take."""
    epochs = int(np.clip(round(CPU_PIXELS / _pixels_an_epoch(train, size)), 10, 150))
    batch = 4 if len(train) < 500 else 8
    every = max(1, epochs // 7)
    steps, minutes = epochs * -(-len(train) // batch), epochs * _pixels_an_epoch(train, fed) / CPU_SPEED / 60
    images = counted(len(train), "image")
    return [
        Setting("model.backbone", {"name": "resnet18", "weights": None, "norm": "batch"},
                "no GPU here: the smallest ResNet, from scratch; weights: DEFAULT starts from ImageNet (a download)"),
        Setting("model.neck", {"channels": 128}, "half of the default: a quarter of the work"),
        Setting("model.head", {"depth": 2, "width": 128, "norm": "group"},
                "half of the default too; norms help with small batches"),
        Setting("model.anchors", {"base_size": 48, "scales": 1, "ratios": [1.0]},
                "atss needs one a cell; six cells wide, so that fine levels learn large objects"),
        Setting("loss.assigner", {"name": "atss"}, "each object has its own IoU threshold: small ones are learnt"),
        Setting("loss.classification", "quality_focal", "scores learn the IoU of their boxes: good boxes come first"),
        Setting("loss.box", "giou", "measures overlap, as AP does"),
        Setting("loss.box_weight", 2, "as in the papers of atss and quality_focal"),
        Setting("train.epochs", epochs,
                f"{counted(steps, 'step')}, about {_duration(minutes)} on 2 CPU cores for {images}"),
        Setting("train.batch_size", batch,
                "few images: many small steps learn more than few large ones" if batch == 4 else
                f"{len(train)} images make enough steps of 8"),
        Setting("train.optimizer", "adamw", "its learning rate depends little on the data"),
        _lr(2e-3 if batch == 4 else 2.8e-3, batch),
        Setting("train.weight_decay", 0.05, "usual with adamw; a model overfits few images easily"),
        Setting("train.schedule", "cosine", "ends at zero: no milestones to choose"),
        Setting("train.warmup_steps", min(200, steps // 10), "all weights start at random"),
        Setting("train.clip_norm", 10, "one odd image or box cannot move the weights far"),
        Setting("train.ema", 0.998, "the average of the last 500 steps is steadier than the last one"),
        Setting("train.eval_every", every, f"{counted(-(-epochs // every), 'evaluation')}; the best weights are kept"),
    ]  # fmt: skip


def _gpu(train: CocoData) -> list[Setting]:
    few = len(train) < 2000
    epochs = 36 if few else 24 if len(train) < 10_000 else 12
    batch = 8 if few else 16
    steps, images = counted(epochs * -(-len(train) // batch), "step"), counted(len(train), "image")
    return [
        Setting("data.workers", min(8, os.cpu_count() or 1), "one for each CPU core here, at most 8"),
        Setting("model.weights", "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1",
                f"COCO's 118,000 images teach more than these {len(train)}; a download of 146 MB at first"),
        Setting("model.backbone", {"norm": "frozen"},
                f"COCO's statistics are better than those of {batch} images"),
        Setting("model.neck", {"extra_levels": "c5"}, "as these weights have it"),
        Setting("model.head", {"norm": "group"}, "as these weights have it"),
        Setting("loss.box", "giou", "these weights were trained with it"),
        Setting("train.epochs", epochs,
                f"{steps} for {images}; patience ends it earlier"),
        Setting("train.batch_size", batch, "if GPU memory is short, each batch is split, with the same result"),
        Setting("train.optimizer", "adamw", "its learning rate depends little on the data"),
        _lr(2.8e-4, batch),
        Setting("train.weight_decay", 0.05, "as these weights were trained; a model overfits few images easily"),
        Setting("train.backbone_lr_factor", 0.1, "small steps keep what the backbone learnt from more images"),
        Setting("train.freeze", ["backbone.stem", "backbone.layer1"], "edges and colours are the same everywhere"),
        Setting("train.schedule", "cosine", "ends at zero: no milestones to choose"),
        Setting("train.warmup_steps", 100, "the head's rows for new classes start at random"),
        Setting("train.clip_norm", 1.0, "one odd image or box cannot move the weights far"),
        Setting("train.ema", 0.999, "on few images averaged weights are better and steadier"),
        Setting("train.patience", max(4, epochs // 3), "epochs without a better AP: a third of the training"),
    ]  # fmt: skip


def _lr(lr: float, batch: int) -> Setting:
    """lr: of adamw, for 16 images. The configs named above have the same, scaled to the batch."""
    scaled = scaled_lr(TrainConfig(optimizer="adamw", lr=lr, batch_size=batch))
    return Setting("train.lr", lr, f"for 16 images, scaled to the batch by its square root: {scaled:.2g} for {batch}")


def _pixels_an_epoch(train: CocoData, size: dict[str, int]) -> float:
    """Pixels of all images after resizing, without padding."""
    shapes, counts = np.unique(np.stack([train.heights, train.widths], axis=1), axis=0, return_counts=True)
    resized = np.array([fed_size(shape, ShortLong(**size)) for shape in shapes.tolist()], float)
    return float((resized.prod(axis=1) * counts).sum())


def _duration(minutes: float) -> str:
    return counted(max(1, round(minutes)), "minute") if minutes < 100 else counted(round(minutes / 60), "hour")
