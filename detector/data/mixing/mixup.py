"""Mixup: one training image seen through another."""

from __future__ import annotations

import cv2
import numpy as np

from detector.data.mixing.mosaic import fill
from detector.data.transforms import Sample

MIXUP_BETA = 8.0  # the weight of the first image is drawn from Beta(8, 8): 0.5, give or take 0.12


def mixup(first: Sample, second: Sample, rng: np.random.Generator) -> Sample:
    """Two samples seen through each other (arXiv 1710.09412; for detection arXiv 1902.04103): pixels averaged, with the
    weight of the first from Beta(MIXUP_BETA, MIXUP_BETA), and the objects of both, each at full weight.

    The second is scaled and cropped to the size of the first.
    """
    image, boxes, labels = first
    weight = float(rng.beta(MIXUP_BETA, MIXUP_BETA))
    other, other_boxes, other_labels = fill(second, image.shape[:2], rng)
    mixed = cv2.addWeighted(image, weight, other, 1 - weight, 0)
    return mixed, np.concatenate([boxes, other_boxes]), np.concatenate([labels, other_labels])
