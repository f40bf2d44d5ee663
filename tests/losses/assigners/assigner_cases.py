"""Anchors of a small image, and objects on it, for the tests of assigners; and IoU in numpy, one pair at a time."""

import numpy as np
import torch

from detector.models.anchors import AnchorGenerator

HEIGHT, WIDTH = 64, 96
GRIDS = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]  # the coarse levels have fewer than 9 cells


def pyramid(per_cell: int) -> dict:
    """The outputs of a model that assigners see, without predictions; 1, 3 or 9 anchors a cell.

    The sides of 1 and 3 are powers of 2, so that float32 computes exactly with them.
    """
    scales, ratios = {1: (1, [1.0]), 3: (1, [0.25, 1.0, 4.0]), 9: (3, [0.5, 1.0, 2.0])}[per_cell]
    generator = AnchorGenerator(base_size=16, scales=scales, ratios=ratios)
    return {
        "anchors": generator((HEIGHT, WIDTH), GRIDS, torch.device("cpu")),
        "anchors_per_level": generator.level_sizes(GRIDS),
        "anchors_per_cell": per_cell,
    }


def objects(count: int, seed: int, *, whole: bool = False, classes: int = 3) -> dict:
    """`count` random objects of 3 to 60 pixels, some of which stick out of the image or lie outside.

    whole: corners on multiples of 4 pixels, and each object twice, so that everything ties.
    """
    generator = torch.Generator().manual_seed(seed)
    sides = torch.exp(torch.rand(count, 2, generator=generator) * 3 + 1.1)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT]) * 1.2 - 10
    boxes = torch.cat([corners, corners + sides], dim=1)
    if whole:
        boxes = (boxes / 4).round() * 4
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 4)
        boxes[1::2] = boxes[::2][: len(boxes[1::2])]
    return {"boxes": boxes, "labels": torch.randint(classes, (count,), generator=generator)}


def iou(a: np.ndarray, b: np.ndarray) -> np.float32:
    """Of two boxes (4,) float32 xyxy."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area - width * height)


def is_inside(anchor: np.ndarray, box: np.ndarray) -> bool:
    """Whether the anchor's centre lies in the box, at least 0.01 pixels from its sides."""
    x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    return min(x - box[0], box[2] - x, y - box[1], box[3] - y) > 0.01
