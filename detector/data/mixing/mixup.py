"""Mixup: one training image averaged with another."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from detector.data.sample import Sample
from detector.data.transforms import crop_boxes, resize

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


def cover(sample: Sample, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Scale a sample until it covers `size` (h, w), keeping its aspect ratio, and crop what exceeds it at random.

    Boxes are clipped to the crop; objects of which less than MIN_VISIBLE remains are dropped (see `crop_boxes`).
    """
    image, boxes, labels = sample
    h, w = image.shape[:2]
    scale = max(size[0] / h, size[1] / w)
    crop_h, crop_w = (min(side, max(1, round(out / scale))) for side, out in ((h, size[0]), (w, size[1])))
    y, x = int(rng.integers(h - crop_h + 1)), int(rng.integers(w - crop_w + 1))
    boxes, labels = crop_boxes(boxes - np.array([x, y, x, y], np.float32), labels, (crop_h, crop_w), size)
    return resize(image[y : y + crop_h, x : x + crop_w], size), boxes, labels
