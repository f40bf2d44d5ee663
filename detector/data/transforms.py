"""From an image as read to an image as fed: augmentation and resizing. The only module that knows albumentations.

A transform is called with (image (H,W,3) uint8 RGB, boxes (M,4) float32 xyxy, labels (M,) int64, seed) and returns the
same three. The image it returns is content only: `letterbox` pads it to the square where image_size is a number.
"""

from __future__ import annotations

import inspect
import os
import random
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
from pydantic import ValidationError

from detector.config.schema import ShortLong
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean

MIN_VISIBLE = 0.25  # an object of which a crop leaves less than this part is no longer a target
MIN_SIDE = 2.0  # nor is one of which it leaves less than this, in pixels of the fed image

# name -> (range of the scale jitter, albumentations transforms applied to the resized image)
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

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def build_transform(image_size: int | ShortLong, augment: str | list[dict] | None) -> Transform:
    """The transform for training with `augment` (see DataConfig), or for evaluation when it is None.

    A preset jitters the scale, cropping at random where the image then exceeds its place, and resizes, in one step; its
    flips and colours come after. None flips vertically: most photographs have an up and a down.
    A list of one's own, [{name: HorizontalFlip, p: 0.5}, ...], is applied to the image as read, before the resizing, so
    that its parameters are in pixels of the file and whatever it crops is fed at image_size.

    Raises InputError when a name or an argument is not albumentations', or a transform cannot move boxes.
    """
    if isinstance(augment, list):
        return Transform(image_size, before=_Albumentations(augment))
    if augment is not None and augment not in PRESETS:
        raise InputError(f"augment.transforms: unknown preset {augment!r}; {did_you_mean(augment, PRESETS)}")
    jitter, after = PRESETS[augment or "none"]
    return Transform(image_size, jitter=jitter, after=_Albumentations(after) if after else None)


class Transform:
    """before (albumentations) → scale jitter, crop and resize → after (albumentations)."""

    def __init__(
        self,
        image_size: int | ShortLong,
        *,
        jitter: tuple[float, float] = (1.0, 1.0),
        before: _Albumentations | None = None,
        after: _Albumentations | None = None,
    ):
        self.image_size = image_size
        self.jitter = jitter
        self.before = before
        self.after = after

    def __call__(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, seed: int = 0) -> Sample:
        """The sample as fed; the same seed gives the same result, whatever was processed before.

        Objects of which a crop leaves less than MIN_VISIBLE are dropped, and by a preset's crop those of less than
        MIN_SIDE pixels. Objects that are that small without being cut stay.
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
        """Resize to image_size times the jitter; what then exceeds image_size is cropped, before it is resized."""
        h, w = image.shape[:2]
        fed_h, fed_w = fed_size((h, w), self.image_size)
        square = isinstance(self.image_size, int)
        room_h, room_w = (self.image_size, self.image_size) if square else (fed_h, fed_w)
        factor = rng.uniform(*self.jitter)
        crop_h, out_h = _window(h, fed_h * factor / h, room_h)
        crop_w, out_w = _window(w, fed_w * factor / w, room_w)
        y, x = int(rng.integers(h - crop_h + 1)), int(rng.integers(w - crop_w + 1))
        boxes = boxes - np.float32([x, y, x, y])
        boxes, labels = crop_boxes(boxes, labels, (crop_h, crop_w), (out_h, out_w))
        return resize(image[y : y + crop_h, x : x + crop_w], (out_h, out_w)), boxes, labels


def fed_size(size: tuple[int, int], image_size: int | ShortLong) -> tuple[int, int]:
    """(h, w) that an image of `size` (h, w) is resized to: its long side becomes `image_size` when that is a number,
    else its short side becomes `short` unless the long one would pass `long` (torchvision's rule, rounded)."""
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
    """Pixels to cut out of a side so that, resized by `scale`, at most `most` come out; and how many come out."""
    window = min(side, max(1, round(most / scale)))
    return window, min(most, max(1, round(window * scale)))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, as torchvision's published figures use; averaging below half size, where bilinear skips pixels."""
    h, w = size
    if (h, w) == image.shape[:2]:
        return np.ascontiguousarray(image)
    shrinks = 2 * h < image.shape[0] and 2 * w < image.shape[1]
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def crop_boxes(
    boxes: np.ndarray, labels: np.ndarray, window: tuple[int, int], out: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes in coordinates of a window (h, w), clipped to it and scaled to `out` (h, w), less those it cuts off."""
    clipped = boxes.clip(0, np.float32([window[1], window[0]] * 2))
    before, after = boxes[:, 2:] - boxes[:, :2], clipped[:, 2:] - clipped[:, :2]
    # x times new width / old width, y times new height / old height
    scaled = (clipped * np.array([out[1] / window[1], out[0] / window[0]] * 2)).astype(np.float32)
    sides = scaled[:, 2:] - scaled[:, :2]
    visible = after.prod(axis=1) >= MIN_VISIBLE * before.prod(axis=1)
    keep = visible & (sides > 0).all(axis=1) & ((sides >= MIN_SIDE) | (after >= before)).all(axis=1)
    return scaled[keep], labels[keep]


class _Albumentations:
    """A list of albumentations transforms, {name, **arguments} each, applied in order."""

    def __init__(self, entries: list[dict[str, Any]]):
        library = _albumentations()
        parameters = library.BboxParams("pascal_voc", min_visibility=MIN_VISIBLE, clip=True, filter_invalid_bboxes=True)
        transforms = [_transform(entry) for entry in entries]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nothing moves boxes, when nothing does
            self.compose = library.Compose(transforms, bbox_params=parameters)
        self.names = ", ".join(entry["name"] for entry in entries)

    def __call__(self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Sample:
        # set_random_seed would give every transform the same random numbers: whatever is flipped would be darkened too
        self.compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        try:
            out = self.compose(image=image, bboxes=np.column_stack([boxes, labels]).astype(np.float32))
        except Exception as problem:
            h, w = image.shape[:2]
            why = " ".join(str(problem).split())
            raise InputError(
                f"augment.transforms: {self.names} failed on an image of {w}x{h} pixels: {why}"
            ) from problem
        image, rows = out["image"], out["bboxes"].reshape(-1, 5)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise InputError(
                f"augment.transforms: {self.names} must leave a uint8 RGB image; the model normalises it itself"
            )
        return image, rows[:, :4].astype(np.float32), rows[:, 4].astype(np.int64)


@cache
def _albumentations():
    """The library, imported when first needed (it takes seconds), without its question to the network for updates."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    return albumentations


def _transform(entry: dict[str, Any]):
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InputError(
            f"augment.transforms: every entry needs a name, as in {{name: HorizontalFlip, p: 0.5}}; got {entry}"
        )
    arguments = {key: value for key, value in entry.items() if key != "name"}
    name, known = entry["name"], _transforms_for_boxes()
    if name not in known:
        raise InputError(
            f"augment.transforms: no albumentations transform {name!r} for boxes; {did_you_mean(name, known)}"
        )
    parameters = inspect.signature(known[name]).parameters
    for key in arguments:
        if key not in parameters:
            raise InputError(f"augment.transforms: {name} has no argument {key!r}; {did_you_mean(key, parameters)}")
    defaults = {key: p.default for key, p in parameters.items() if p.default is not p.empty}
    try:
        with warnings.catch_warnings():
            # of some wrong arguments albumentations only warns, and takes others instead
            warnings.simplefilter("error")
            known[name].InitSchema(**defaults | arguments, strict=True)
            warnings.simplefilter("ignore")  # what is left is advice on what else to use
            transform = known[name](**arguments)
    except (ValueError, TypeError, Warning) as problem:
        raise InputError(f"augment.transforms: {name}: {_complaint(problem)}") from None
    if set(transform.targets_as_params) - {"image", "bboxes"}:
        raise InputError(f"augment.transforms: {name} needs more than an image and its boxes")
    return transform


@cache
def _transforms_for_boxes() -> dict[str, Callable]:
    """Every transform of albumentations that leaves boxes where they are or moves them along."""
    library = _albumentations()
    abstract = (library.BasicTransform, library.ImageOnlyTransform, library.DualTransform, library.Transform3D)
    found = {}
    for name, thing in vars(library).items():
        if not inspect.isclass(thing) or not issubclass(thing, library.BasicTransform) or thing in abstract:
            continue
        if issubclass(thing, library.ImageOnlyTransform) or "BBOXES" in str(thing._targets):
            found[name] = thing
    return found


def _complaint(problem: Exception) -> str:
    """The first thing wrong with the arguments of a transform."""
    if not isinstance(problem, ValidationError):
        return " ".join(str(problem).split())
    error = problem.errors()[0]
    where = ".".join(map(str, error["loc"]))
    what = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "missing" else f", got {error['input']!r}"
    return f"{where}: {what}{got}" if where else what
