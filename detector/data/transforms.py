"""From an image as read to an image as fed: augmentation and resizing.

A transform is called with a sample and a seed and returns a sample. The image it returns is content only: `letterbox`
pads it to the square where image_size is a number.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from detector.config.data import ShortLong
from detector.data.albumentations_list import AlbumentationsList
from detector.data.sample import Sample
from detector.utils.nearest import lookup

MIN_VISIBLE = 0.25  # an object is dropped when a crop leaves less than this fraction of it
MIN_SIDE = 2.0  # pixels of the fed image; an object is dropped when a crop leaves a shorter side

# `augment.transforms` → range of the scale jitter, and albumentations transforms of the resized image. No preset flips
# vertically: most photographs have an up and a down.
PRESETS: dict[str, tuple[tuple[float, float], list[dict[str, Any]]]] = {
    "none": ((1.0, 1.0), []),
    "light": (
        (0.8, 1.25),
        [
            {"name": "HorizontalFlip", "p": 0.5},
            {"name": "RandomBrightnessContrast", "brightness_limit": 0.15, "contrast_limit": 0.15, "p": 0.5},
        ],
    ),
    "strong": (
        (0.5, 1.5),
        [
            {"name": "HorizontalFlip", "p": 0.5},
            {"name": "RandomBrightnessContrast", "brightness_limit": 0.25, "contrast_limit": 0.25, "p": 0.5},
            {"name": "HueSaturationValue", "hue_shift_limit": 10, "sat_shift_limit": 30, "p": 0.5},
            {"name": "Blur", "blur_limit": 5, "p": 0.05},
            {"name": "GaussNoise", "std_range": [0.01, 0.05], "p": 0.05},
        ],
    ),
    # Large-scale jitter, Ghiasi et al., Simple Copy-Paste, arXiv 2012.07177: for long trainings.
    "lsj": ((0.1, 2.0), [{"name": "HorizontalFlip", "p": 0.5}]),
}


def build_transform(image_size: int | ShortLong, transforms: str | list[dict[str, Any]] | None) -> Transform:
    """The transform for training with `transforms` (see AugmentConfig), or for evaluation when it is None.

    A preset jitters the scale, crops at random where the image is then larger than its place, and resizes, all in one
    step; flips and colours follow. Where the image is then smaller than its place, `letterbox` and the batch pad it.
    A list, [{name: HorizontalFlip, p: 0.5}, ...], is applied to the image as read, before it is resized: its parameters
    are in pixels of the file, and its crops are fed at image_size. Of a range of short sides, training draws one for
    each image.

    Raises InputError for an unknown preset, a name or argument that albumentations does not have, or a transform that
    cannot move boxes.
    """
    if transforms is None:
        return Transform(evaluated(image_size))
    if isinstance(transforms, list):
        return Transform(image_size, before=AlbumentationsList(transforms, MIN_VISIBLE))
    jitter, after = lookup(PRESETS, transforms, "augment.transforms")
    return Transform(image_size, jitter=jitter, after=AlbumentationsList(after, MIN_VISIBLE) if after else None)


class Transform:
    """`before` (albumentations) → scale jitter, crop and resize → `after` (albumentations)."""

    def __init__(
        self,
        image_size: int | ShortLong,
        *,
        jitter: tuple[float, float] = (1.0, 1.0),
        before: AlbumentationsList | None = None,
        after: AlbumentationsList | None = None,
    ):
        self.image_size = image_size
        self.jitter = jitter
        self.before = before
        self.after = after

    def __call__(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, seed: int = 0) -> Sample:
        """The sample as fed: image (h,w,3) uint8, boxes (m,4) float32 xyxy in its pixels, labels (m,) int64, m <= M.

        The result depends on the arguments only. Objects of which a crop leaves less than MIN_VISIBLE are dropped, and
        by a preset's crop also those it cuts to less than MIN_SIDE. Raises InputError when albumentations fails.
        """
        rng = np.random.default_rng(seed)
        sample = (image, boxes, labels)
        if self.before:
            sample = self.before(*sample, rng)
        sample = self._fit(*sample, rng)
        if self.after:
            sample = self.after(*sample, rng)
        return sample

    def _fit(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Sample:
        """Resize to image_size times a random factor of the jitter, after cropping what would exceed image_size."""
        h, w = image.shape[:2]
        image_size = _drawn(self.image_size, rng)
        fed_h, fed_w = fed_size((h, w), image_size)
        room = (image_size, image_size) if isinstance(image_size, int) else (fed_h, fed_w)
        factor = rng.uniform(*self.jitter)
        return scaled_crop((image, boxes, labels), (fed_h * factor / h, fed_w * factor / w), room, rng)


def evaluated(image_size: int | ShortLong) -> int | ShortLong:
    """The image size of evaluation: of a range of short sides the greatest."""
    if isinstance(image_size, int):
        return image_size
    return ShortLong(short=image_size.greatest, long=image_size.long)


def _drawn(image_size: int | ShortLong, rng: np.random.Generator) -> int | ShortLong:
    """The image size of one training image: of a range of short sides any whole number, all equally likely.

    As detectron2's ResizeShortestEdge with sample_style "range".
    """
    if isinstance(image_size, int) or image_size.least == image_size.greatest:
        return image_size
    return ShortLong(short=int(rng.integers(image_size.least, image_size.greatest + 1)), long=image_size.long)


def fed_size(size: tuple[int, int], image_size: int | ShortLong) -> tuple[int, int]:
    """(h, w) in pixels to which an image of `size` (h, w) is resized: by `fed_scale`, rounded."""
    scale = fed_scale(size, image_size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def fed_scale(size: tuple[int, int], image_size: int | ShortLong) -> float:
    """The factor by which an image of `size` (h, w) is resized.

    Where `image_size` is a number, it is the new long side. Otherwise the short side becomes `short`, of a range the
    greatest, unless the long one would exceed `long` (torchvision's rule).
    """
    if isinstance(image_size, int):
        return image_size / max(size)
    return min(image_size.greatest / min(size), image_size.long / max(size))


def letterbox(image: np.ndarray, image_size: int | ShortLong) -> np.ndarray:
    """Pad a fed image with 0 at the right and bottom to the square of `image_size`; nothing for ShortLong."""
    if not isinstance(image_size, int) or image.shape[:2] == (image_size, image_size):
        return image
    square = np.zeros((image_size, image_size, 3), np.uint8)
    square[: image.shape[0], : image.shape[1]] = image
    return square


def scaled_crop(sample: Sample, scale: tuple[float, float], most: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Resize a sample by `scale` (y, x), after cropping at random what would then exceed `most` (h, w) pixels.

    Objects that the crop cuts off are dropped as `crop_boxes` says.
    """
    image, boxes, labels = sample
    h, w = image.shape[:2]
    crop_h, out_h = _window(h, scale[0], most[0])
    crop_w, out_w = _window(w, scale[1], most[1])
    y, x = int(rng.integers(h - crop_h + 1)), int(rng.integers(w - crop_w + 1))
    boxes = boxes - np.array([x, y, x, y], np.float32)
    boxes, labels = crop_boxes(boxes, labels, (crop_h, crop_w), (out_h, out_w))
    return resize(image[y : y + crop_h, x : x + crop_w], (out_h, out_w)), boxes, labels


def _window(side: int, scale: float, most: int) -> tuple[int, int]:
    """Pixels to crop from a side so that at most `most` remain after resizing by `scale`; and how many remain."""
    window = min(side, max(1, round(most / scale)))
    return window, min(most, max(1, round(window * scale)))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image (H,W,3) uint8 to `size` (h, w).

    Bilinear, as for torchvision's published figures; below half the size, where bilinear would skip pixels, averages.
    """
    h, w = size
    if (h, w) == image.shape[:2]:
        return np.ascontiguousarray(image)
    shrinks = 2 * h < image.shape[0] and 2 * w < image.shape[1]
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def crop_boxes(
    boxes: np.ndarray, labels: np.ndarray, window: tuple[int, int], out: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (M,4) xyxy in pixels of a window (h, w): clip them to it, scale them to `out` (h, w), drop cut-off objects.

    An object is dropped where less than MIN_VISIBLE of its area remains, or a side that was cut is below MIN_SIDE.
    Returns boxes (m,4) float32 and labels (m,).
    """
    clipped = boxes.clip(0, np.array([window[1], window[0]] * 2, np.float32))
    before, after = boxes[:, 2:] - boxes[:, :2], clipped[:, 2:] - clipped[:, :2]
    scaled = (clipped * np.array([out[1] / window[1], out[0] / window[0]] * 2)).astype(np.float32)
    sides = scaled[:, 2:] - scaled[:, :2]
    visible = after.prod(axis=1) >= MIN_VISIBLE * before.prod(axis=1)
    keep = visible & (sides > 0).all(axis=1) & ((sides >= MIN_SIDE) | (after >= before)).all(axis=1)
    return scaled[keep], labels[keep]
