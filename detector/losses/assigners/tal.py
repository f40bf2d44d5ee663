"""Task-aligned assignment: Feng et al., TOOD: Task-aligned One-stage Object Detection, arXiv 2108.07755, section 3.2.

    t = s^alpha u^beta                  s: the predicted score of the object's class, u: IoU of predicted box and object

An object takes the anchors with the greatest t among those whose centre lies in it. The soft target of each is its t,
scaled so that the greatest target of an object is its greatest u.

Instead of t this computes -log t = alpha softplus(-logit) - beta log u, because t itself underflows where a young
detector has small scores and overlaps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.losses.assigners.assignment import BACKGROUND, Assignment, pad_objects
from detector.losses.assigners.candidates import (
    anchors_of,
    centres,
    contains,
    objects_at_a_time,
    scattered,
    smallest,
    to_assignment,
    winners,
)
from detector.ops.boxes import decode, iou


class TaskAlignedAssigner:
    """topk: anchors that an object takes, m in the paper. alpha, beta: exponents of score and IoU.

    An anchor that several objects take goes to the one with the greatest u. Nothing is ignored. An anchor's centre must
    lie in the object before it counts among the best; the authors' code looks at that afterwards, so that a small
    object can lose all its anchors.

    every_object: an object in which no centre lies takes the best aligned of all anchors. In the paper it gets none.
    """

    def __init__(self, topk: int = 13, alpha: float = 1.0, beta: float = 6.0, *, every_object: bool = False):
        self.topk, self.alpha, self.beta, self.every_object = topk, alpha, beta, every_object

    @torch.no_grad()
    def __call__(self, outputs: dict[str, Any], targets: list[dict[str, Any]]) -> Assignment:
        """outputs: logits (N, R, K), deltas (N, R, 4), anchors (R, 4) float32 xyxy pixels, anchors_per_cell (an int).
        targets: N dicts with boxes (M_i, 4) xyxy and labels (M_i,). The assignment has scores: the soft targets.

        Does the whole batch at once, on the anchors' device. An anchor whose predictions are not finite counts as well
        aligned, so that it stays in the loss, which then is not finite either.
        """
        anchors = outputs["anchors"]
        boxes, labels = pad_objects(targets, anchors.device)
        at_a_time = objects_at_a_time(boxes, len(anchors))
        predicted = decode(outputs["deltas"], anchors).float()
        broken = ~(outputs["deltas"].isfinite() & predicted.isfinite()).all(dim=2)
        parts = [
            self._best(outputs, predicted, broken, *part)
            for part in zip(boxes.split(at_a_time, dim=1), labels.split(at_a_time, dim=1), strict=True)
        ]
        cost, candidates, overlap = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
        won = winners(candidates, overlap, cost.isfinite(), len(anchors))
        least = torch.where(won, cost, torch.inf).amin(dim=2, keepdim=True)
        greatest = torch.where(won, overlap, 0).amax(dim=2, keepdim=True)
        target = (least - cost).exp().mul(greatest).clamp(max=1)  # NaN where nothing was won
        scores = scattered(target, candidates, won, len(anchors), empty=0)
        return to_assignment(boxes, labels, candidates, won, len(anchors))._replace(scores=scores)

    def _best(
        self, outputs: dict[str, Any], predicted: Tensor, broken: Tensor, boxes: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best aligned anchors of objects (N, M, 4): -log t (inf: not to be taken), index and u, each (N, M, topk).

        predicted: (N, R, 4) boxes. broken: (N, R) bool. labels: (N, M).
        """
        per_cell = outputs["anchors_per_cell"]
        cells, allowed = self._cells(
            outputs["anchors"][::per_cell], boxes, labels != BACKGROUND, at_least=-(-self.topk // per_cell)
        )
        allowed = allowed.repeat_interleave(per_cell, dim=2)
        candidates = anchors_of(cells, per_cell)
        image = torch.arange(len(boxes), device=boxes.device)[:, None, None]

        overlap = iou(boxes[:, :, None], predicted[image, candidates])
        overlap = overlap.masked_fill_(broken[image, candidates], 1.0)
        logit = outputs["logits"][image, candidates, labels.clamp(min=0)[..., None]].float()
        cost = self.alpha * F.softplus(-logit) - self.beta * overlap.log()
        cost = cost.masked_fill_(~logit.isfinite(), 0.0).clamp_(min=0)  # an IoU may round to more than 1
        cost, best = smallest(cost.masked_fill_(~allowed, torch.inf), self.topk)
        return cost, candidates.gather(2, best), overlap.gather(2, best)

    def _cells(self, anchors: Tensor, boxes: Tensor, real: Tensor, *, at_least: int) -> tuple[Tensor, Tensor]:
        """The cells whose centre lies in objects (N, M, 4): their indices, in ascending order, and which of them count,
        each (N, M, L). L is as many as the objects need, but `at_least` so many, if there are.

        anchors: (C, 4), one of each cell: they have one centre. real: (N, M) bool, the objects that are no padding;
        padding needs no cell.
        """
        allowed = contains(boxes, *centres(anchors))
        if self.every_object:
            allowed |= ~allowed.any(dim=2, keepdim=True)
        allowed &= real[..., None]
        place = allowed.cumsum(dim=2)
        count = place[..., -1:]
        most = min(max(int(count.max()), at_least), len(anchors))  # CPU-GPU sync point
        index = torch.where(allowed, place - 1, most)  # one column more, for what is thrown away
        cells = torch.arange(len(anchors), device=boxes.device).expand_as(index)
        found = index.new_zeros(*index.shape[:2], most + 1).scatter_(2, index, cells)[..., :most]
        return found, torch.arange(most, device=boxes.device) < count
