"""Mixup: one training image averaged with another."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from detector.data.mixing.source import cover
from detector.data.sample import Sample

BETA = 8.0  # the weight of the first image is drawn from Beta(8, 8): mean 0.5, standard deviation 0.12


def mixup(samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
    """The weighted mean of two images (arXiv 1710.09412; for detection arXiv 1902.04103), with the objects of both.

    The weight of the first image is drawn from Beta(BETA, BETA). The objects are not weighted. The second sample is
    scaled and cropped to the size of the first (see `cover`).
    """
    (image, boxes, labels), second = samples
    weight = float(rng.beta(BETA, BETA))
    other, other_boxes, other_labels = cover(second, image.shape[:2], rng)
    mixed = cv2.addWeighted(image, weight, other, 1 - weight, 0)
    return mixed, np.concatenate([boxes, other_boxes]), np.concatenate([labels, other_labels])
