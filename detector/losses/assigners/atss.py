"""Adaptive training sample selection: Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection via
Adaptive Training Sample Selection, arXiv 1912.02424, algorithm 1.

An object's candidates are the anchors of the cells that are nearest to its centre, on each level. Positive are those
whose IoU with it is at least the mean plus the standard deviation of all its candidates, and whose centre lies in it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detector.losses.assigners.assignment import Assignment, pad_objects
from detector.losses.assigners.candidates import (
    anchors_of,
    centres,
    contains,
    objects_at_a_time,
    smallest,
    to_assignment,
    winners,
)
from detector.ops.boxes import iou


class ATSSAssigner:
    """topk: cells per level. With A anchors a cell that makes topk * A candidates per level, as in the authors' code,
    so that more shapes do not mean fewer places; mmdetection takes topk of them.

    An anchor that several objects claim goes to the one with the greatest IoU. Nothing is ignored.

    every_object: an object that would get no anchor (a tiny one, in which no centre lies) takes the candidates with its
    greatest IoU. In the paper it gets none.
    """

    def __init__(self, topk: int = 9, *, every_object: bool = False):
        self.topk, self.every_object = topk, every_object

    @torch.no_grad()
    def __call__(self, outputs: dict[str, Any], targets: list[dict[str, Any]]) -> Assignment:
        """outputs: anchors (R, 4) float32 xyxy pixels, anchors_per_cell (an int) and anchors_per_level (a list of int).
        targets: N dicts with boxes (M_i, 4) xyxy and labels (M_i,).

        Does the whole batch at once, on the anchors' device, without a CPU-GPU sync.
        """
        anchors, per_cell = outputs["anchors"], outputs["anchors_per_cell"]
        boxes, labels = pad_objects(targets, anchors.device)
        cells = [count // per_cell for count in outputs["anchors_per_level"]]
        parts = [
            self._candidates(part, anchors, per_cell, cells)
            for part in boxes.split(objects_at_a_time(boxes, sum(cells)), dim=1)
        ]
        candidates, overlap, positive = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
        won = winners(candidates, overlap, positive, len(anchors))
        return to_assignment(boxes, labels, candidates, won, len(anchors))

    def _candidates(
        self, boxes: Tensor, anchors: Tensor, per_cell: int, cells: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The candidates of objects (N, M, 4): their indices, their IoU, and whether they are positive, each (N, M, C).

        cells: how many, on each level. Padding has no area, so that nothing is positive for it.
        """
        x, y = centres(anchors[::per_cell])  # the anchors of a cell have one centre
        own_x, own_y = centres(boxes)
        distances = (own_x[..., None] - x).square_().add_((own_y[..., None] - y).square_())
        nearest, first = [], 0
        for count, of_level in zip(cells, distances.split(cells, dim=2), strict=True):
            nearest.append(smallest(of_level, self.topk)[1] + first)
            first += count
        candidates = anchors_of(torch.cat(nearest, dim=2), per_cell)
        shapes = anchors[candidates]
        overlap = iou(boxes[:, :, None], shapes)
        std, mean = torch.std_mean(overlap, dim=2, keepdim=True)
        positive = (overlap >= mean + std) & contains(boxes, *centres(shapes))
        if self.every_object:
            best = (overlap == overlap.amax(dim=2, keepdim=True)) & (overlap > 0)
            positive = torch.where(positive.any(dim=2, keepdim=True), positive, best)
        return candidates, overlap, positive
