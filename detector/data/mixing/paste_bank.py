"""Which objects are pasted, and how often: the boxes of rare classes that can be cropped, and each class's number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.config.data import ShortLong
from detector.data.coco import CocoData
from detector.data.transforms import fed_size
from detector.ops.box_arrays import coverage
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean

RARE = 0.5  # a class with less than this fraction of an equal share of all boxes is rare
MIN_SIDE = 8  # pixels, in the file and as fed: of less, nobody can tell what it is
BORDER = 1  # pixels: an object whose box is nearer to the image's border may be cut off
MAX_SHOWN = 0.3  # greatest fraction of another object in a crop: it would be an object without a label


@dataclass(frozen=True)
class Bank:
    """E objects that can be cropped. It holds no pixels: images are read when a crop is pasted."""

    images: np.ndarray  # (E,) int64, index of the image
    boxes: np.ndarray  # (E,4) float32 xyxy pixels
    labels: np.ndarray  # (E,) int64
    heights: np.ndarray  # (E,) float64, of the object's centre in its image, 0 at the top to 1


def rare_classes(counts: np.ndarray, classes: str | list[str], names: list[str]) -> tuple[np.ndarray, float]:
    """The labels of the classes to paste, and the number of boxes per epoch up to which each is filled.

    counts: (K,) boxes of each class. An equal share is the mean count of the classes that have boxes.
    classes: `auto`: those with less than RARE of an equal share, filled up to that; or names, each filled up to an
        equal share. names: (K,).
    Raises InputError when one of `classes` is not in `names`.
    """
    share = counts.sum() / max(1, (counts > 0).sum())
    if classes == "auto":
        return np.flatnonzero((counts < RARE * share) & (counts > 0)), RARE * share
    for name in classes:
        if name not in names:
            raise InputError(f"augment.paste.classes: no class {name!r} in the data; {did_you_mean(name, names)}")
    return np.array(sorted({names.index(name) for name in classes}), np.int64), share


def rare_bank(data: CocoData, labels: np.ndarray, context: float, image_size: int | ShortLong | None = None) -> Bank:
    """The objects of the classes `labels` that can be cropped, with a margin of `context` times their sides.

    Left out are crowds, boxes at the image's border or with a side below MIN_SIDE, also after resizing to `image_size`
    (None: images are not resized), and crops that show more than MAX_SHOWN of another object. What a crop shows of
    other objects is pasted along, as unlabelled background.
    """
    images, boxes, box_labels = [], [], []
    candidates = np.flatnonzero(np.isin(data.labels, labels))
    for image in np.unique(np.searchsorted(data.first, candidates, side="right") - 1).tolist():
        image_boxes, image_labels = data.target_boxes(image)
        size = data.size(image)
        scale = 1.0 if image_size is None else min(1.0, max(fed_size(size, image_size)) / max(size))
        good = np.isin(image_labels, labels) & _croppable(image_boxes, size, context, MIN_SIDE / scale)
        images += [image] * int(good.sum())
        boxes.append(image_boxes[good])
        box_labels.append(image_labels[good])
    all_boxes = np.concatenate([np.zeros((0, 4), np.float32), *boxes])
    centres = all_boxes[:, [1, 3]].mean(axis=1, dtype=np.float64)
    return Bank(
        np.array(images, np.int64),
        all_boxes,
        np.concatenate([np.zeros(0, np.int64), *box_labels]),
        centres / data.heights[images] if images else centres,
    )


def crop_windows(boxes: np.ndarray, size: tuple[int, int], context: float) -> np.ndarray:
    """(M,4) xyxy boxes → (M,4) int64 xyxy: each box with a margin of `context` times its sides.

    The windows are rounded outwards to whole pixels and clipped to the image of `size` (h, w).
    """
    margin = context * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    outer = np.concatenate([np.floor(boxes - margin)[:, :2], np.ceil(boxes + margin)[:, 2:]], axis=1)
    return outer.clip(0, [size[1], size[0]] * 2).astype(np.int64)


def pasted_per_epoch(counts: np.ndarray, most: np.ndarray, target: float, budget: float) -> np.ndarray:
    """(K,) float64: how many objects of each class to paste per epoch, on average.

    Every class is filled up from its `counts` (K,) to one level, by at most `most` (K,) objects. The level is `target`,
    or the lower one at which `budget` objects are pasted in all. So the rarest classes get the budget first.
    """

    def pasted(level: float) -> np.ndarray:
        return np.minimum((level - counts).clip(0), most)

    low, high = 0.0, float(target)
    if pasted(high).sum() <= budget:
        return pasted(high)
    for _ in range(60):  # bisection, to the precision of float64
        middle = (low + high) / 2
        low, high = (low, middle) if pasted(middle).sum() > budget else (middle, high)
    return pasted(low)


def _croppable(boxes: np.ndarray, size: tuple[int, int], context: float, min_side: float) -> np.ndarray:
    """(M,) bool: which of the objects (M,4) xyxy of an image of `size` (h, w) make a good crop (see `rare_bank`)."""
    inside = (boxes[:, :2] >= BORDER).all(axis=1) & (boxes[:, 2:] <= np.subtract(size[::-1], BORDER)).all(axis=1)
    large = (boxes[:, 2:] - boxes[:, :2] >= min_side).all(axis=1)
    shown = coverage(crop_windows(boxes, size, context), boxes)
    np.fill_diagonal(shown, 0)  # every crop shows its own object
    return inside & large & (shown <= MAX_SHOWN).all(axis=1)
