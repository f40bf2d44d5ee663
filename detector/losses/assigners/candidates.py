"""What `atss` and `tal` share: the best candidates of each object, and one object for each anchor.

torch.topk leaves open which of equal values it takes. Here it is the first, on every device. For that a value becomes
one sortable whole number together with its index: floats that are not negative have the order of their bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.losses.assigners.assignment import BACKGROUND, Assignment

CPU_CHUNK = 1 << 18  # pairs of objects and anchors at a time: temporaries stay in cache
GPU_CHUNK = 1 << 24  # pairs at a time: 128 MB for the sortable numbers, however many objects an image holds
MARGIN = 0.01  # pixels by which a centre must be inside, as in the authors' code of both methods
INDEX = (1 << 32) - 1  # the half of a sortable number that holds the index


def objects_at_a_time(boxes: Tensor, columns: int) -> int:
    """How many objects of each image to compare with `columns` anchors or cells at a time. boxes: (N, M, 4)."""
    chunk = CPU_CHUNK if boxes.device.type == "cpu" else GPU_CHUNK
    return max(1, chunk // (len(boxes) * columns))


def contains(boxes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(N, M, C) bool: which points are inside which boxes. boxes: (N, M, 4) xyxy. x, y: (C,) or (N, M, C) pixels."""
    x1, y1, x2, y2 = boxes[..., None].unbind(dim=2)  # each (N, M, 1)
    return torch.minimum(torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y)) > MARGIN


def centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """x and y (...,) of the centres of boxes (..., 4) xyxy."""
    x, y = ((boxes[..., :2] + boxes[..., 2:]) / 2).unbind(dim=-1)
    return x, y


def anchors_of(cells: Tensor, per_cell: int) -> Tensor:
    """(N, M, C * A) int64: the anchors of cells (N, M, C) int64. per_cell: A."""
    return (cells[..., None] * per_cell + torch.arange(per_cell, device=cells.device)).flatten(2)


def smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest values along the last dimension, ascending, and their indices; of equal ones the first.

    values: (..., n) float32, not negative, not NaN. Returns (..., min(k, n)) float32 and int64.
    """
    keys = _sortable(values).bitwise_or_(torch.arange(values.shape[-1], device=values.device))
    keys = keys.topk(min(k, values.shape[-1]), largest=False).values
    return (keys >> 32).int().view(torch.float32), keys & INDEX


def winners(anchors: Tensor, overlap: Tensor, claimed: Tensor, num_anchors: int) -> Tensor:
    """(N, M, C) bool: of the objects that claim an anchor, the one with the greatest IoU gets it, the first of equals.

    anchors: (N, M, C) int64, the candidates of each object, each of them once. overlap: (N, M, C) float32, their IoU,
    not negative, not NaN.
    claimed: (N, M, C) bool, whether the object claims the candidate.
    """
    anchors = torch.where(claimed, anchors, num_anchors).flatten(1)  # claims that do not count come last
    falling = INDEX - (_sortable(overlap.flatten(1)) >> 32)
    order = ((anchors << 32) | falling).sort(dim=1, stable=True).indices
    anchors = anchors.gather(1, order)
    first = anchors != F.pad(anchors, (1, 0), value=-1)[:, :-1]  # of the claims of one anchor
    won = torch.zeros_like(first).scatter_(1, order, first)
    return won.view_as(claimed) & claimed


def to_assignment(boxes: Tensor, labels: Tensor, anchors: Tensor, won: Tensor, num_anchors: int) -> Assignment:
    """The anchors that objects have won are positive, all others background.

    boxes: (N, M, 4). labels: (N, M). anchors: (N, M, C) int64 candidates. won: (N, M, C) bool, see `winners`.
    """
    objects = torch.arange(labels.shape[1], device=labels.device)[:, None].expand_as(anchors)
    taken = scattered(objects, anchors, won, num_anchors, empty=-1)
    objects = taken.clamp(min=0)
    return Assignment(torch.where(taken >= 0, labels.gather(1, objects), BACKGROUND), objects, boxes)


def scattered(values: Tensor, anchors: Tensor, won: Tensor, num_anchors: int, *, empty: int) -> Tensor:
    """(N, R): of each anchor the value of the object that has won it; `empty` for the others. All else: (N, M, C)."""
    index = torch.where(won, anchors, num_anchors)  # one column more, for what is thrown away
    out = torch.full((len(values), num_anchors + 1), empty, dtype=values.dtype, device=values.device)
    return out.scatter_(1, index.flatten(1), values.flatten(1))[:, :num_anchors]


def _sortable(values: Tensor) -> Tensor:
    """Whole numbers (int64) in the order of `values`, float32 and not negative; their lower 32 bits are 0."""
    return values.view(torch.int32).long().bitwise_left_shift_(32)
