"""From an image as read to an image as fed: augmentation and resizing.

A transform is called with a sample and a seed and returns a sample. The image it returns is content only: `letterbox`
pads it to the square where image_size is a number.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from detector.config.schema import ShortLong
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
}


def build_transform(image_size: int | ShortLong, transforms: str | list[dict[str, Any]] | None) -> Transform:
    """The transform for training with `transforms` (see AugmentConfig), or for evaluation when it is None.

    A preset jitters the scale, crops at random where the image is then larger than its place, and resizes, all in one
    step; flips and colours follow. A list, [{name: HorizontalFlip, p: 0.5}, ...], is applied to the image as read,
    before it is resized: its parameters are in pixels of the file, and its crops are fed at image_size.

    Raises InputError for an unknown preset, a name or argument that albumentations does not have, or a transform that
    cannot move boxes.
    """
    if isinstance(transforms, list):
        return Transform(image_size, before=AlbumentationsList(transforms, MIN_VISIBLE))
    jitter, after = lookup(PRESETS, "none" if transforms is None else transforms, "augment.transforms")
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
        fed_h, fed_w = fed_size((h, w), self.image_size)
        room_h, room_w = (self.image_size,) * 2 if isinstance(self.image_size, int) else (fed_h, fed_w)
        factor = rng.uniform(*self.jitter)
        crop_h, out_h = _window(h, fed_h * factor / h, room_h)
        crop_w, out_w = _window(w, fed_w * factor / w, room_w)
        y, x = int(rng.integers(h - crop_h + 1)), int(rng.integers(w - crop_w + 1))
        boxes = boxes - np.array([x, y, x, y], np.float32)
        boxes, labels = crop_boxes(boxes, labels, (crop_h, crop_w), (out_h, out_w))
        return resize(image[y : y + crop_h, x : x + crop_w], (out_h, out_w)), boxes, labels


def fed_size(size: tuple[int, int], image_size: int | ShortLong) -> tuple[int, int]:
    """(h, w) in pixels to which an image of `size` (h, w) is resized.

    Where `image_size` is a number, it is the new long side. Otherwise the short side becomes `short`, unless the long
    one would exceed `long` (torchvision's rule, rounded).
    """
    if isinstance(image_size, int):
        scale = image_size / max(size)
    else:
        scale = min(image_size.short / min(size), image_size.long / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def letterbox(image: np.ndarray, image_size: int | ShortLong) -> np.ndarray:
    """Pad a fed image with 0 at the right and bottom to the square of `image_size`; nothing for ShortLong."""
    if not isinstance(image_size, int) or image.shape[:2] == (image_size, image_size):
        return image
    square = np.zeros((image_size, image_size, 3), np.uint8)
    square[: image.shape[0], : image.shape[1]] = image
    return square


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
