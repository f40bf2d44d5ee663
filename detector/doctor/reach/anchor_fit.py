"""How well anchors fit objects: the best IoU of any anchor with each object, exactly, without making the anchors.

The overlap of two sides of given lengths depends on the distance of their centres alone and does not grow with it, and
an anchor's IoU grows with the overlap of either side. So of all anchors of one shape on one level, that in the nearest
row and column is the best: a few dozen anchors an object, whatever the image holds.
"""

from __future__ import annotations

import numpy as np
import torch

from detector.config.schema import AnchorConfig, ModelConfig
from detector.doctor.reach.resized_objects import FedObjects, grids
from detector.models.anchors import AnchorGenerator

CHUNK = 1 << 14  # objects at a time: temporaries stay in cache


def cell_distances(objects: FedObjects, model: ModelConfig) -> np.ndarray:
    """(B, L, 2) float32: pixels in x and y from each object's centre to the nearest cell's, on each of L levels."""
    used, inverse = np.unique(objects.sizes, axis=0, return_inverse=True)
    padded, cells = grids(model, used)
    strides = padded[:, None] // cells  # as AnchorGenerator has them
    size = inverse.ravel()[objects.images]
    centres = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    distances = np.empty((len(centres), cells.shape[1], 2), np.float32)
    for axis, of_grid in ((0, 1), (1, 0)):  # x goes with columns
        stride, last = strides[size, :, of_grid], cells[size, :, of_grid] - 1
        centre = centres[:, axis, None]
        distances[..., axis] = np.abs(centre - np.clip(np.round(centre / stride), 0, last) * stride)
    return distances


def best_iou(sides: np.ndarray, distances: np.ndarray, anchors: AnchorConfig) -> np.ndarray:
    """(B,) float32: the greatest IoU of any anchor with each object.

    sides: (B, 2) float32 width and height. distances: (B, L, 2), as `cell_distances` gives them.
    Raises InputError where anchors vanish.
    """
    levels = distances.shape[1]
    generator = AnchorGenerator(**anchors.model_dump())
    shapes = generator((1, 1), [(1, 1)] * levels, torch.device("cpu")).numpy()  # one cell: all around (0, 0)
    shapes = (shapes[:, 2:] - shapes[:, :2]).reshape(levels, -1, 2)
    best = np.empty(len(sides), np.float32)
    for start in range(0, len(sides), CHUNK):
        part = slice(start, start + CHUNK)
        box, distance = sides[part, None, None], distances[part, :, None]  # (n, 1, 1, 2), (n, L, 1, 2)
        inner = 1.0
        for axis in (0, 1):
            own, anchor = box[..., axis], shapes[..., axis]
            overlap = np.minimum(np.minimum(own, anchor), (own + anchor) / 2 - distance[..., axis])
            inner = inner * overlap.clip(0)
        best[part] = (inner / (box.prod(axis=3) + shapes.prod(axis=2) - inner)).reshape(len(box), -1).max(axis=1)
    return best


def class_shares(of: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(K,) float64: the share of each class's objects for which `of` (B,) bool is true; NaN without any."""
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, np.bincount(labels, of, minlength=classes) / np.maximum(counts, 1), np.nan)
