"""Mixup: one training image averaged with another."""

from __future__ import annotations

import cv2
import numpy as np

from detector.data.mixing.source import RandomImages, cover
from detector.data.sample import Sample

BETA = 8.0  # the weight of the first image is drawn from Beta(8, 8): mean 0.5, standard deviation 0.12


class Mixup:
    """With `probability`, averages an image with a random other of `source`."""

    def __init__(self, probability: float, source: RandomImages):
        self.probability = probability
        self.source = source

    def apply(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Sample:
        """See `Mixer.apply`."""
        if rng.random() >= self.probability:
            return image, boxes, labels
        return mixup((image, boxes, labels), self.source.draw(rng), rng)

    def lines(self) -> list[str]:
        """One line for the log; none where the probability is 0."""
        return [f"mixup: {self.probability:.0%} of the images"] if self.probability else []


def mixup(first: Sample, second: Sample, rng: np.random.Generator) -> Sample:
    """The weighted mean of two images (arXiv 1710.09412; for detection arXiv 1902.04103), with the objects of both.

    The weight of the first image is drawn from Beta(BETA, BETA). The objects are not weighted. The second sample is
    scaled and cropped to the size of the first (see `cover`).
    """
    image, boxes, labels = first
    weight = float(rng.beta(BETA, BETA))
    other, other_boxes, other_labels = cover(second, image.shape[:2], rng)
    mixed = cv2.addWeighted(image, weight, other, 1 - weight, 0)
    return mixed, np.concatenate([boxes, other_boxes]), np.concatenate([labels, other_labels])
