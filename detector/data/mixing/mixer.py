"""Augmentations that mix several images into one, in the order in which they are applied."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from detector.config.schema import AugmentConfig
from detector.data.coco import CocoData
from detector.data.mixing.mixup import Mixup
from detector.data.mixing.mosaic import Mosaic
from detector.data.mixing.paste import Paster
from detector.data.mixing.source import RandomImages
from detector.data.sample import Sample


class Mixing(Protocol):
    """What the mixer applies; both methods are described there."""

    def apply(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Sample: ...

    def lines(self) -> list[str]: ...


class Mixer:
    """Mixes other images of `data`, the training split, into one: mosaic, then mixup, then pasted objects.

    It keeps no state and draws from the generator it is given, so the result depends neither on earlier calls nor on
    the process.

    weights: (I,) float64 >= 0, how often each image is mixed in, relative to the others: those of the batch sampler.
    Raises InputError when a class to paste is not in the data.
    """

    def __init__(self, data: CocoData, config: AugmentConfig, weights: np.ndarray | None = None):
        source = RandomImages(data, weights)
        self.mixings: list[Mixing] = [Mosaic(config.mosaic, source), Mixup(config.mixup, source)]
        if config.paste is not None:  # last, so that pasted objects are neither cropped nor averaged away
            self.mixings.append(Paster(data, **config.paste.model_dump()))

    def apply(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Sample:
        """image (H,W,3) uint8 RGB, boxes (M,4) float32 xyxy in its pixels, labels (M,) int64 → the same three.

        The image keeps its size; the given arrays are not changed. Raises InputError for an image that cannot be read.
        """
        for mixing in self.mixings:
            image, boxes, labels = mixing.apply(image, boxes, labels, rng)
        return image, boxes, labels

    def lines(self) -> list[str]:
        """What is mixed and how often, as lines for the log."""
        return [line for mixing in self.mixings for line in mixing.lines()]
