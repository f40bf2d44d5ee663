"""IoU and coverage of boxes in numpy arrays whose last dimension is a box, in pixels.

Leading dimensions broadcast: `iou_xyxy(a, b)` pairs boxes one with one, `iou_xyxy(a[:, None], b)` all with all.
"""

from __future__ import annotations

import numpy as np


def iou_xyxy(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(...) IoU of boxes (..., 4) xyxy, in their dtype; 0 where both areas are 0."""
    low, high = np.maximum(boxes[..., :2], others[..., :2]), np.minimum(boxes[..., 2:], others[..., 2:])
    intersection = (high - low).clip(0).prod(axis=-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) + (others[..., 2:] - others[..., :2]).prod(axis=-1)
    return _ratio(intersection, areas - intersection)


def iou_xywh(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """(...) IoU of boxes (..., 4) xywh, in their dtype; 0 where both areas are 0.

    crowd: (...) bool, which of `others` are crowds: for these, intersection over the area of the box (as COCO does).
    The operations have the order of pycocotools' bbIou, so in float64 the results are the same to the last bit.
    """
    x, y, w, h = np.moveaxis(boxes, -1, 0)
    other_x, other_y, other_w, other_h = np.moveaxis(others, -1, 0)
    width = np.minimum(x + w, other_x + other_w) - np.maximum(x, other_x)
    height = np.minimum(y + h, other_y + other_h) - np.maximum(y, other_y)
    intersection = np.where((width > 0) & (height > 0), width * height, 0)
    area = w * h
    union = area + other_w * other_h - intersection
    return _ratio(intersection, union if crowd is None else np.where(crowd, area, union))


def iou_of_sides(sides: np.ndarray, others: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """(...) IoU of boxes given by their sides and how far apart their centres are.

    sides, others: (..., 2) width and height, positive. distances: (..., 2) of the centres along x and y, at least 0.
    """
    intersection: np.ndarray | float = 1.0
    for axis in (0, 1):  # one axis at a time: temporaries of half the size
        own, other = sides[..., axis], others[..., axis]
        overlap = np.minimum(np.minimum(own, other), (own + other) / 2 - distances[..., axis])
        intersection = intersection * overlap.clip(0)
    return intersection / (sides.prod(axis=-1) + others.prod(axis=-1) - intersection)


def coverage(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(W, M) the part of each box (M, 4) that each window (W, 4) covers, 0..1. xyxy, boxes of positive area."""
    low = np.maximum(windows[:, None, :2], boxes[None, :, :2])
    high = np.minimum(windows[:, None, 2:], boxes[None, :, 2:])
    return (high - low).clip(0).prod(axis=2) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def clipped_xyxy(xywh: np.ndarray, height: np.ndarray | int, width: np.ndarray | int) -> np.ndarray:
    """(B,4) float64 xywh → (B,4) float32 xyxy, clipped to images of `height` and `width`, each a number or (B,)."""
    xyxy = np.empty(xywh.shape, np.float32)
    for axis, side in ((0, width), (1, height)):
        xyxy[:, axis] = np.clip(xywh[:, axis], 0, side)
        xyxy[:, axis + 2] = np.clip(xywh[:, axis] + xywh[:, axis + 2], 0, side)
    return xyxy


def _ratio(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
