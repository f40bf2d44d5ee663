"""Mosaic: one training image made of crops of four."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.config.data import ShortLong
from detector.data.sample import Sample
from detector.data.transforms import fed_scale, scaled_crop

CENTRE = (0.2, 0.8)  # range of the point where the four images meet, as a fraction of the sides: darknet's
GREY = 114  # where an image does not fill its quarter, as in YOLOv5 and YOLOX


def mosaic(samples: Sequence[Sample], rng: np.random.Generator, *, image_size: int | ShortLong) -> Sample:
    """Crops of four samples around a random centre, as in YOLOv4 (arXiv 2004.10934; darknet, src/data.c): the first at
    the top left, then top right, bottom left and bottom right.

    Each is fed as large as alone, and so are its objects; a crop at random makes it fit its quarter. (darknet crops the
    corner that is nearest to the centre. At random, every part of an image is seen.) An image that is smaller than its
    quarter touches the centre, and grey fills the rest. Objects that a crop cuts off are dropped as in `crop_boxes`.

    samples: four, of any sizes. image_size: to which images are resized afterwards.
    The result has the size of the first and boxes in its pixels. An image that is less than 2 pixels wide or high
    cannot be divided and is returned alone.
    """
    h, w = samples[0][0].shape[:2]
    if min(h, w) < 2:
        return samples[0]
    y, x = (int(np.clip(round(side * rng.uniform(*CENTRE)), 1, side - 1)) for side in (h, w))
    canvas = np.full((h, w, 3), GREY, np.uint8)
    all_boxes, all_labels = [], []
    first = fed_scale((h, w), image_size)
    for number, sample in enumerate(samples):
        below, right = divmod(number, 2)
        scale = fed_scale(sample[0].shape[:2], image_size) / first
        crop, boxes, labels = scaled_crop(sample, (scale, scale), (h - y if below else y, w - x if right else x), rng)
        top, left = (y if below else y - crop.shape[0]), (x if right else x - crop.shape[1])
        canvas[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        all_boxes.append(boxes + np.array([left, top, left, top], np.float32))
        all_labels.append(labels)
    return canvas, np.concatenate(all_boxes), np.concatenate(all_labels)
