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
    centres,
    contains,
    objects_at_a_time,
    scattered,
    smallest,
    to_assignment,
    winners,
)
from detector.ops.boxes import decode, iou_with_anchors


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
        """outputs: logits (N, R, K), deltas (N, R, 4), anchors (R, 4) float32 xyxy pixels. targets: N dicts with boxes
        (M_i, 4) xyxy and labels (M_i,). The assignment has scores: the soft targets.

        Does the whole batch at once, on the anchors' device, without a CPU-GPU sync. An anchor whose predictions are
        not finite counts as well aligned, so that it stays in the loss, which then is not finite either.
        """
        anchors = outputs["anchors"]
        boxes, labels = pad_objects(targets, anchors.device)
        predicted = decode(outputs["deltas"], anchors).float()
        broken = ~(outputs["deltas"].isfinite() & predicted.isfinite()).all(dim=2)
        predicted = predicted.movedim(2, 0).contiguous().movedim(0, 2)  # as `iou_with_anchors` reads it: no copy there
        places, at_a_time = centres(anchors), objects_at_a_time(boxes, len(anchors))
        parts = [
            self._best(outputs["logits"], predicted, broken, places, *part)
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
        self,
        logits: Tensor,
        predicted: Tensor,
        broken: Tensor,
        places: tuple[Tensor, Tensor],
        boxes: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best aligned anchors of objects (N, M, 4): -log t (inf: not to be taken), index and u, each (N, M, topk).

        predicted: (N, R, 4) boxes. broken: (N, R) bool. places: x and y (R,) of the anchors' centres. labels: (N, M).
        """
        overlap = iou_with_anchors(boxes, predicted).masked_fill_(broken[:, None], 1.0)
        rows = labels.clamp(min=0)[..., None].expand_as(overlap)
        logit = logits.transpose(1, 2).gather(1, rows).float()
        cost = self.alpha * F.softplus(-logit) - self.beta * overlap.log()
        cost = cost.masked_fill_(~logit.isfinite(), 0.0).clamp_(min=0)  # an IoU may round to more than 1

        allowed = contains(boxes, *places)
        if self.every_object:
            allowed |= ~allowed.any(dim=2, keepdim=True)
        allowed &= (labels != BACKGROUND)[..., None]
        cost, best = smallest(cost.masked_fill_(~allowed, torch.inf), self.topk)
        return cost, best, overlap.gather(2, best)
