"""How well anchors fit objects: the best IoU of any anchor with each object, exact, without making all the anchors.

The overlap of two intervals of given lengths depends only on the distance of their centres, and falls with it; and the
IoU rises with the overlap along either axis. So of all anchors of one shape on one level, the one in the nearest row
and column is the best. That leaves a few dozen anchors for each object, whatever the size of the image.
"""

from __future__ import annotations

import numpy as np
import torch

from detector.config.model import ModelConfig
from detector.doctor.reach.resized_objects import ResizedObjects, grids
from detector.losses.assigners.candidates import MARGIN
from detector.models.anchors import AnchorGenerator
from detector.models.build import build_anchors
from detector.ops.box_arrays import iou_of_sides

CHUNK = 1 << 14  # objects at a time: temporaries stay in cache


def cell_distances(objects: ResizedObjects, model: ModelConfig) -> np.ndarray:
    """(B, L, 2) float32: pixels along x and y from each object's centre to the nearest cell's, on each of L levels."""
    sizes, inverse = np.unique(objects.padded_sizes, axis=0, return_inverse=True)
    padded, cells = grids(model, sizes)
    generator = build_anchors(model)
    pairs = zip(padded.tolist(), cells.tolist(), strict=True)
    strides = np.array([generator.strides(size, levels) for size, levels in pairs])
    size = inverse.ravel()[objects.images]
    centres = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    distances = np.empty((len(centres), cells.shape[1], 2), np.float32)
    for axis, grid_axis in ((0, 1), (1, 0)):  # x goes with columns
        stride, last = strides[size, :, grid_axis], cells[size, :, grid_axis] - 1
        centre = centres[:, axis, None]
        distances[..., axis] = np.abs(centre - np.clip(np.round(centre / stride), 0, last) * stride)
    return distances


def holds_centre(sides: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """(B,) bool: whether the centre of any anchor lies in the object. sides, distances: as for `best_iou`."""
    return np.any(np.all(distances < sides[:, None] / 2 - MARGIN, axis=2), axis=1)


def best_iou(sides: np.ndarray, distances: np.ndarray, generator: AnchorGenerator) -> np.ndarray:
    """(B,) float32: the greatest IoU of any anchor with each object.

    sides: (B, 2) float32 width and height. distances: (B, L, 2), from `cell_distances`.
    """
    levels = distances.shape[1]
    corners = generator((1, 1), [(1, 1)] * levels, torch.device("cpu")).numpy()  # one cell: all around (0, 0)
    shapes = (corners[:, 2:] - corners[:, :2]).reshape(levels, -1, 2)
    best = np.empty(len(sides), np.float32)
    for start in range(0, len(sides), CHUNK):
        part = slice(start, start + CHUNK)
        ious = iou_of_sides(sides[part, None, None], shapes, distances[part, :, None])  # (n, L, anchors a cell)
        best[part] = ious.reshape(len(ious), -1).max(axis=1)
    return best
