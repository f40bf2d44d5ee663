"""Mosaic and mixup: one training image made of several. Sizes and boxes are in pixels of the first image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.data.transforms import Sample, crop_boxes, resize

CENTRE = (0.25, 0.75)  # where the four images of a mosaic meet, in parts of the sides


def mosaic(samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
    """Four samples around a random centre, as in YOLOv4 (arXiv 2004.10934): the first at the top left, then top right,
    bottom left and bottom right. Each fills its quarter, with its aspect ratio kept and what does not fit cropped.

    samples: four of (image (H,W,3) uint8, boxes (M,4) float32 xyxy, labels (M,) int64), of any sizes.
    Returns the same three; the image has the size of the first. Objects of which less than MIN_VISIBLE remains are
    dropped, as by any crop.
    """
    h, w = samples[0][0].shape[:2]
    if min(h, w) < 2:  # too thin to be divided
        return samples[0]
    y, x = (int(np.clip(round(side * rng.uniform(*CENTRE)), 1, side - 1)) for side in (h, w))
    canvas = np.empty((h, w, 3), np.uint8)
    all_boxes, all_labels = [], []
    quarters = [(0, 0, y, x), (0, x, y, w), (y, 0, h, x), (y, x, h, w)]
    for sample, (top, left, bottom, right) in zip(samples, quarters, strict=True):
        canvas[top:bottom, left:right], boxes, labels = fill(sample, (bottom - top, right - left), rng)
        all_boxes.append(boxes + np.float32([left, top, left, top]))
        all_labels.append(labels)
    return canvas, np.concatenate(all_boxes), np.concatenate(all_labels)


def fill(sample: Sample, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """The sample scaled to cover `size` (h, w) just so, and cropped at random where it then exceeds it."""
    image, boxes, labels = sample
    h, w = image.shape[:2]
    scale = max(size[0] / h, size[1] / w)
    crop_h, crop_w = (min(side, max(1, round(out / scale))) for side, out in ((h, size[0]), (w, size[1])))
    y, x = int(rng.integers(h - crop_h + 1)), int(rng.integers(w - crop_w + 1))
    boxes, labels = crop_boxes(boxes - np.float32([x, y, x, y]), labels, (crop_h, crop_w), size)
    return resize(image[y : y + crop_h, x : x + crop_w], size), boxes, labels
