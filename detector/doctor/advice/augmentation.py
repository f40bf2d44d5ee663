"""Which augmentation to train with: vertical flips too, if the images have no up and down."""

from __future__ import annotations

import numpy as np
from scipy.stats import ks_2samp, spearmanr

from detector.data.coco import CocoData
from detector.doctor.advice.setting import Setting

UPRIGHT_BOXES = 1000  # fewer do not show that there is no up and down
UPRIGHT = 0.05  # smaller differences between above and below count as none
TALL = 0.1  # a smaller log(height / width) counts as no taller than wide


def choose_augmentation(train: CocoData) -> list[Setting]:
    """augment.transforms: the preset `light`, or a list of transforms with vertical flips."""
    evidence = no_up_and_down(train)
    if evidence is None:
        why = "mirroring, scale and colour; no vertical flips, since up and down may differ in these images"
        return [Setting("augment.transforms", "light", why)]
    affine = {"name": "Affine", "scale": [0.8, 1.25], "translate_percent": [-0.1, 0.1], "p": 0.7}
    light = {"name": "RandomBrightnessContrast", "brightness_limit": 0.2, "contrast_limit": 0.2, "p": 0.5}
    transforms = [
        ({"name": "HorizontalFlip", "p": 0.5}, "doubles the views; remove it if left and right differ"),
        ({"name": "VerticalFlip", "p": 0.5}, f"{evidence}; remove it if up and down differ"),
        (affine, "shows the same objects in other sizes and places"),
        (light, "shows them in other light"),
    ]
    return [Setting(f"augment.transforms[{i}]", value, reason) for i, (value, reason) in enumerate(transforms)]


def no_up_and_down(train: CocoData) -> str | None:
    """Why the images seem to have no up and down; None if they may have.

    A camera that looks along the ground sees other and larger things below than above, and what stands is taller than
    wide. If at least UPRIGHT_BOXES boxes show none of that, the camera looked straight down (microscope, drone,
    conveyor), or at things that lie as they fell.
    """
    kept = ~train.iscrowd
    boxes, labels = train.boxes[kept], train.labels[kept]
    if len(boxes) < UPRIGHT_BOXES:
        return None
    y = (boxes[:, 1] + boxes[:, 3] / 2) / train.heights[train.box_images[kept]]
    place = float(ks_2samp(y, 1 - y).statistic)
    size = float(spearmanr(boxes[:, 2] * boxes[:, 3], y).statistic)
    means = [abs(float(y[labels == k].mean()) - 0.5) for k in np.flatnonzero(np.bincount(labels) >= 100)]
    tall = abs(float(np.median(np.log(boxes[:, 3] / boxes[:, 2]))))
    if not (place < UPRIGHT and abs(size) < UPRIGHT and max(means, default=0) < UPRIGHT and tall < TALL):
        return None
    return (
        f"up and down look alike: as many objects above as below (they differ by {place:.1%}), as large "
        f"(correlation {size:.2f}), no taller than wide"
    )
