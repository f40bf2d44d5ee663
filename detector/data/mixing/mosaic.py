"""Mosaic: one training image made of four."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.data.mixing.source import cover
from detector.data.sample import Sample

CENTRE = (0.25, 0.75)  # range of the point where the four images meet, as a fraction of the sides


def mosaic(samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
    """Four samples around a random centre, as in YOLOv4 (arXiv 2004.10934): the first at the top left, then top right,
    bottom left and bottom right. Each covers its quarter (see `cover`).

    samples: four, of any sizes. The result has the size of the first and boxes in its pixels. An image that is less
    than 2 pixels wide or high cannot be divided and is returned alone.
    """
    h, w = samples[0][0].shape[:2]
    if min(h, w) < 2:
        return samples[0]
    y, x = (int(np.clip(round(side * rng.uniform(*CENTRE)), 1, side - 1)) for side in (h, w))
    canvas = np.empty((h, w, 3), np.uint8)
    all_boxes, all_labels = [], []
    quarters = [(0, 0, y, x), (0, x, y, w), (y, 0, h, x), (y, x, h, w)]
    for sample, (top, left, bottom, right) in zip(samples, quarters, strict=True):
        canvas[top:bottom, left:right], boxes, labels = cover(sample, (bottom - top, right - left), rng)
        all_boxes.append(boxes + np.array([left, top, left, top], np.float32))
        all_labels.append(labels)
    return canvas, np.concatenate(all_boxes), np.concatenate(all_labels)
