"""The images that are mixed into others: drawn at random from the training split."""

from __future__ import annotations

import numpy as np

from detector.data.coco import CocoData
from detector.data.sample import Sample, read_sample


class RandomImages:
    """Draws images of `data`, image i with a probability proportional to weights[i].

    weights: (I,) float64 >= 0, those of the batch sampler, so that mixing does not undo the resampling.
    """

    def __init__(self, data: CocoData, weights: np.ndarray):
        self.data = data
        self.cumulative = np.cumsum(weights)

    def draw(self, rng: np.random.Generator) -> Sample:
        """A random image with its boxes and labels. Raises InputError where its file cannot be read."""
        drawn = rng.uniform(0, self.cumulative[-1])
        return read_sample(self.data, int(np.searchsorted(self.cumulative, drawn, side="right")))
