"""What makes a training image from several: mosaic, mixup and pasted rare objects, in this order."""

from __future__ import annotations

import numpy as np

from detector.config.schema import AugmentConfig
from detector.data.coco import CocoData
from detector.data.image import read_image
from detector.data.mixing.mixup import mixup
from detector.data.mixing.mosaic import mosaic
from detector.data.mixing.paste import Paster
from detector.data.transforms import Sample


class Mixer:
    """Mixes other images of `data` (the training split, and no other) into one.

    It holds no state and draws from the generator it is given: the result does not depend on what was made before,
    nor in which process. Pasting comes last, so that what is pasted is neither cropped nor faded.

    weights: (I,) float64 >= 0, how often each image is mixed in, relative to the others (as the sampler draws them).
    Raises InputError when a class to paste is not in the data.
    """

    def __init__(self, data: CocoData, config: AugmentConfig, weights: np.ndarray | None = None):
        self.data = data
        self.cumulative = np.cumsum(np.ones(len(data)) if weights is None else weights)
        self.mosaic = config.mosaic
        self.mixup = config.mixup
        self.paster = None if config.paste is None else Paster(data, **config.paste.model_dump())

    def apply(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Sample:
        """image (H,W,3) uint8 RGB, boxes (M,4) float32 xyxy in its pixels, labels (M,) int64 → the same three, of the
        same size. The arrays given are left as they are. Raises InputError for an image that cannot be read."""
        sample = (image, boxes, labels)
        if rng.random() < self.mosaic:
            sample = mosaic([sample, *(self._another(rng) for _ in range(3))], rng)
        if rng.random() < self.mixup:
            sample = mixup(sample, self._another(rng), rng)
        return self.paster.apply(*sample, rng) if self.paster else sample

    def lines(self) -> list[str]:
        """What is mixed, for the log: a line or a table each."""
        lines = [f"mosaic: {self.mosaic:.0%} of the images"] if self.mosaic else []
        lines += [f"mixup: {self.mixup:.0%} of the images"] if self.mixup else []
        return lines + (self.paster.lines() if self.paster else [])

    def read(self, index: int) -> Sample:
        """Image `index` of the data, its boxes and labels, as `apply` takes them."""
        size = (int(self.data.heights[index]), int(self.data.widths[index]))
        return read_image(self.data.images_dir / self.data.file_name(index), size), *self.data.target_boxes(index)

    def _another(self, rng: np.random.Generator) -> Sample:
        drawn = rng.uniform(0, self.cumulative[-1])
        return self.read(int(np.searchsorted(self.cumulative, drawn, side="right")))
