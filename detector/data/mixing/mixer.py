"""Augmentations that mix several images into one, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from detector.config.augment import AugmentConfig
from detector.config.data import ShortLong
from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.data.exposure import exposure
from detector.data.mixing.mixup import mixup
from detector.data.mixing.mosaic import mosaic
from detector.data.mixing.paste import Paster
from detector.data.mixing.source import RandomImages
from detector.data.sample import Sample


class Mixing(Protocol):
    """What the mixer applies; both methods are described there."""

    def apply(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Sample: ...

    def lines(self) -> list[str]: ...


class Sometimes:
    """With `probability`, `mix`es an image with `others` random images of `source`."""

    def __init__(
        self,
        name: str,
        mix: Callable[[Sequence[Sample], np.random.Generator], Sample],
        others: int,
        probability: float,
        source: RandomImages,
    ):
        self.name, self.mix, self.others, self.probability, self.source = name, mix, others, probability, source

    def apply(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Sample:
        """See `Mixer.apply`."""
        if rng.random() >= self.probability:
            return image, boxes, labels
        return self.mix([(image, boxes, labels), *(self.source.draw(rng) for _ in range(self.others))], rng)

    def lines(self) -> list[str]:
        """One line for the log; none where the probability is 0."""
        return [f"{self.name}: {self.probability:.0%} of the images"] if self.probability else []


class Mixer:
    """Mixes other images of `data`, the training split, into one: mosaic, then mixup, then pasted objects.

    It keeps no state and draws from the generator it is given, so the result depends neither on earlier calls nor on
    the process.

    weights: (I,) float64 >= 0, how often each image is mixed in, relative to the others: those of the batch sampler.
    image_size: to which images are resized afterwards.
    epochs: of the training. mixed_epochs: the first of them, which alone have mosaic and mixup.
    Raises InputError when a class to paste is not in the data.
    """

    def __init__(
        self,
        data: CocoData,
        config: AugmentConfig,
        *,
        weights: np.ndarray,
        image_size: int | ShortLong,
        epochs: int,
        mixed_epochs: int,
    ):
        source = RandomImages(data, weights)
        drawn = exposure(data, weights).expected_boxes
        # (K,) boxes of each class in an epoch, on average. Not counted: mixup shows more of every class. Mosaic shows
        # about as many.
        self.shown = drawn.astype(np.float64)
        self.epochs, self.mixed_epochs = epochs, mixed_epochs
        self.early = [
            Sometimes("mosaic", partial(mosaic, image_size=image_size), 3, config.mosaic, source),
            Sometimes("mixup", mixup, 1, config.mixup, source),
        ]
        self.always: list[Mixing] = []
        if config.paste is not None:  # last, so that pasted objects are neither cropped nor averaged away
            paster = Paster(data, drawn=drawn, image_size=image_size, **config.paste.model_dump())
            self.always.append(paster)
            self.shown += paster.expected

    def apply(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator, epoch: int
    ) -> Sample:
        """image (H,W,3) uint8 RGB, boxes (M,4) float32 xyxy in its pixels, labels (M,) int64 → the same three.

        epoch: counted from 0. The image keeps its size; the given arrays are not changed. Raises InputError for an
        image that cannot be read.
        """
        for mixing in [*(self.early if epoch < self.mixed_epochs else []), *self.always]:
            image, boxes, labels = mixing.apply(image, boxes, labels, rng)
        return image, boxes, labels

    def lines(self) -> list[str]:
        """What is mixed, how often and how long, as lines for the log."""
        until = f" up to epoch {self.mixed_epochs}" if self.mixed_epochs < self.epochs else ""
        early = [f"{line}{until}" for mixing in self.early for line in mixing.lines()] if self.mixed_epochs else []
        return [*early, *(line for mixing in self.always for line in mixing.lines())]


def build_mixer(config: Config, data: CocoData, weights: np.ndarray) -> Mixer:
    """What the configuration mixes; see `Mixer`."""
    return Mixer(
        data,
        config.augment,
        weights=weights,
        image_size=config.data.image_size,
        epochs=config.train.epochs,
        mixed_epochs=config.mixed_epochs,
    )
