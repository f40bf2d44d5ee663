"""Which objects are pasted and how often: the bank of rare boxes, and the budget of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.data.coco import CocoData

MIN_SIDE = 8  # pixels: a smaller object is no example to repeat
BORDER = 1  # pixels: an object whose box comes this near to the image's border may be cut off
MAX_SHOWN = 0.3  # a crop that shows more than this part of another object would leave it without a label


@dataclass(frozen=True)
class Bank:
    """E objects that can be cut out, no pixels: those are read when needed."""

    images: np.ndarray  # (E,) int64 index of the image
    boxes: np.ndarray  # (E,4) float32 xyxy pixels
    labels: np.ndarray  # (E,) int64


def rare_bank(data: CocoData, labels: np.ndarray, context: float) -> Bank:
    """The objects of the classes `labels` of which a crop, with `context` around it, makes a good example.

    Left out: crowds; boxes at the image's border, with a side below MIN_SIDE, or whose crop shows more than MAX_SHOWN
    of another object. What a crop shows of other objects, up to that, is taken along as background, without a label.
    """
    found = []
    chosen = np.flatnonzero(np.isin(data.labels, labels))
    for image in np.unique(np.searchsorted(data.first, chosen, side="right") - 1).tolist():
        boxes, image_labels = data.target_boxes(image)
        size = (int(data.heights[image]), int(data.widths[image]))
        good = np.isin(image_labels, labels) & _croppable(boxes, size, context)
        found += [(image, box, label) for box, label in zip(boxes[good], image_labels[good], strict=True)]
    images, boxes, image_labels = zip(*found, strict=True) if found else ([], [], [])
    return Bank(np.array(images, np.int64), np.float32(boxes).reshape(-1, 4), np.array(image_labels, np.int64))


def crop_windows(boxes: np.ndarray, size: tuple[int, int], context: float) -> np.ndarray:
    """(M,4) xyxy boxes → (M,4) int64 xyxy, each box with `context` times its sides around it, in whole pixels of an
    image of `size` (h, w)."""
    margin = context * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    outer = np.concatenate([np.floor(boxes - margin)[:, :2], np.ceil(boxes + margin)[:, 2:]], axis=1)
    return outer.clip(0, [size[1], size[0]] * 2).astype(np.int64)


def covered_parts(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(W,4), (M,4) xyxy → (W,M): which part of each box each window covers."""
    low = np.maximum(windows[:, None, :2], boxes[None, :, :2])
    high = np.minimum(windows[:, None, 2:], boxes[None, :, 2:])
    return (high - low).clip(0).prod(axis=2) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def pasted_per_epoch(counts: np.ndarray, most: np.ndarray, target: float, budget: float) -> np.ndarray:
    """(K,) float: how many objects of each class to paste an epoch, on average.

    Every class is filled up from its `counts` (K,) to one level, with at most `most` (K,) pasted. The level is
    `target`, or the lower one at which `budget` objects are pasted in all: so the budget goes to the rarest first.
    """

    def pasted(level: float) -> np.ndarray:
        return np.minimum((level - counts).clip(0), most)

    low, high = 0.0, float(target)
    if pasted(high).sum() <= budget:
        return pasted(high)
    for _ in range(60):  # bisection, to the last bit of a count
        middle = (low + high) / 2
        low, high = (low, middle) if pasted(middle).sum() > budget else (middle, high)
    return pasted(low)


def _croppable(boxes: np.ndarray, size: tuple[int, int], context: float) -> np.ndarray:
    """(M,4) xyxy, all objects of an image of `size` (h, w) → (M,) bool."""
    inside = (boxes[:, :2] >= BORDER).all(axis=1) & (boxes[:, 2:] <= np.subtract(size[::-1], BORDER)).all(axis=1)
    large = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1)
    shown = covered_parts(crop_windows(boxes, size, context), boxes)
    np.fill_diagonal(shown, 0)  # that a crop shows its own object is as it should be
    return inside & large & (shown <= MAX_SHOWN).all(axis=1)
