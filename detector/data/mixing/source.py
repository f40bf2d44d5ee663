"""The images that are mixed into others: drawn at random from the training split, scaled to cover a given place."""

from __future__ import annotations

import numpy as np

from detector.data.coco import CocoData
from detector.data.sample import Sample, read_sample
from detector.data.transforms import crop_boxes, resize


class RandomImages:
    """Draws images of `data`, image i with a probability proportional to weights[i].

    weights: (I,) float64 >= 0, those of the batch sampler, so that mixing does not undo the resampling; None = all
        alike.
    """

    def __init__(self, data: CocoData, weights: np.ndarray | None = None):
        self.data = data
        self.cumulative = np.cumsum(np.ones(len(data)) if weights is None else weights)

    def draw(self, rng: np.random.Generator) -> Sample:
        """A random image with its boxes and labels. Raises InputError where its file cannot be read."""
        drawn = rng.uniform(0, self.cumulative[-1])
        return read_sample(self.data, int(np.searchsorted(self.cumulative, drawn, side="right")))


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
