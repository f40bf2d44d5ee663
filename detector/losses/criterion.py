"""Outputs and targets → the summed losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.config.loss import BoxWeighting, LossConfig
from detector.losses.assigners import build_assigner
from detector.losses.assigners.assignment import Assigner
from detector.losses.box import BOX_LOSSES, box_loss
from detector.losses.class_alpha import check_one_per_class, resolve_alpha, unweighted_alpha
from detector.losses.class_statistics import ClassStatistics
from detector.losses.classification import build_classification
from detector.losses.classification.base import ClassificationLoss
from detector.losses.classification.focal import Focal
from detector.ops.boxes import decode, iou
from detector.utils.nearest import lookup


class Criterion(nn.Module):
    """Classification loss over all anchors and box loss over the positive ones (RetinaNet, arXiv 1708.02002, section
    4.1). The default classification loss is the focal loss.

    Its state is that of the classification loss and of `statistics`; checkpoints hold both.

    box: an entry of BOX_LOSSES; beta: of smooth_l1; box_weight: a factor of the box loss. box_weighting: what weighs
    the positives in it against each other, see `_box_weights`.
    statistics: updated in each forward, if given; over all anchors in every `sample_every`-th.
    Raises InputError for an unknown box loss.
    """

    def __init__(
        self,
        *,
        assigner: Assigner,
        classification: ClassificationLoss | None = None,
        box: str = "smooth_l1",
        beta: float = 0.0,
        box_weight: float = 1.0,
        box_weighting: BoxWeighting = "assigner",
        statistics: ClassStatistics | None = None,
        sample_every: int = 20,
    ):
        super().__init__()
        lookup(BOX_LOSSES, box, "loss.box")  # an unknown name fails here, not in the first step
        self.assigner = assigner
        self.classification = classification or Focal()
        self.box, self.beta, self.box_weight, self.box_weighting = box, beta, box_weight, box_weighting
        self.statistics, self.sample_every = statistics, sample_every

    def forward(self, outputs: dict[str, Any], targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        """outputs: logits (N, R, K), deltas (N, R, 4), anchors (R, 4) xyxy pixels, and what else the assigner needs.
        targets: N dicts with boxes (M, 4) xyxy pixels and labels (M,) int64.

        Returns float32 scalars: the sums loss_cls and loss_box (times `box_weight`); num_positives, the number of
        positive anchors; and normaliser, what the sums are to be divided by: num_positives, or the sum of the
        assigner's scores if they are the targets of the classification loss (TOOD, arXiv 2108.07755, section 3.2). All
        four are of this batch in this process, so they can be added up over the batches of an optimizer step;
        `training/engine.py:_update` then divides by max(1, normaliser of the step). With W processes whose gradients
        are averaged, that is max(1, sum of the normalisers over the processes) / W.
        """
        classes, objects, boxes, scores = self.assigner(outputs, targets)
        image, anchor = (classes >= 0).nonzero(as_tuple=True)  # CPU-GPU sync point
        logits, deltas, anchors = outputs["logits"], outputs["deltas"][image, anchor], outputs["anchors"][anchor]
        boxes = boxes[image, objects[image, anchor]]
        scores = None if scores is None else scores[image, anchor]
        needs_overlap = self.box_weighting == "iou" or (self.classification.needs_quality and scores is None)
        overlap = _overlap(deltas, anchors, boxes) if needs_overlap else None
        quality = (overlap if scores is None else scores) if self.classification.needs_quality else None
        count = classes.new_tensor(len(image)).float()
        normaliser = count if scores is None or quality is None else scores.sum()
        if self.statistics is not None:  # before the classification loss updates its state
            everything = int(self.statistics.batches) % self.sample_every == 0  # CPU-GPU sync point
            self.statistics.observe(
                self.classification, logits.detach(), classes, (image, anchor), quality, everything=everything
            )
        weights = self._box_weights(scores, overlap, logits[image, anchor], normaliser)
        loss_box = box_loss(deltas, anchors, boxes, weights, name=self.box, beta=self.beta)
        return {
            "loss_cls": self.classification(logits, classes, quality),
            "loss_box": self.box_weight * loss_box,
            "num_positives": count,
            "normaliser": normaliser,
        }

    @torch.no_grad()
    def _box_weights(
        self, scores: Tensor | None, overlap: Tensor | None, logits: Tensor, normaliser: Tensor
    ) -> Tensor | None:
        """What the box loss of each of P positives weighs: (P,) float32, or None where all weigh the same.

        By `box_weighting`: "assigner", its `scores` if it gives any; "score", the anchor's greatest predicted score
        (Generalized Focal Loss, arXiv 2006.04388, the authors' code); "iou", `overlap`, the IoU of predicted box and
        object (VarifocalNet, arXiv 2008.13367). The papers divide the weighted sum by the sum of the weights. Here the
        weights are scaled so that their sum is `normaliser`, by which the step divides all losses; without scores they
        have mean 1. That sum is over this batch in this process, not over the whole step.
        """
        if self.box_weighting == "score":
            weights = logits.float().sigmoid().amax(dim=1)
        elif self.box_weighting == "iou":
            assert overlap is not None
            weights = overlap
        elif scores is not None:
            weights = scores
        else:
            return None
        weights = torch.where(weights.any(), weights, 1.0)  # where no box overlaps its object, all weigh the same
        return weights * (normaliser / weights.sum())


@torch.no_grad()
def _overlap(deltas: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
    """(P,) float32 in 0..1: IoU of predicted boxes and objects."""
    return iou(decode(deltas, anchors), boxes)


def build_criterion(
    loss: LossConfig,
    class_counts: np.ndarray,
    class_names: Sequence[str] | None = None,
    statistics: ClassStatistics | None = None,
    sample_every: int = 20,
) -> Criterion:
    """The criterion for training data of K classes.

    class_counts: (K,) int, boxes of each class that an epoch shows. class_names: K, for error messages. statistics,
    sample_every: see `Criterion`. Raises InputError for an unknown name, for a list that is not one value per class,
    and for settings that the classification loss cannot use.
    """
    check_one_per_class(loss, len(class_counts), class_names)
    alpha = resolve_alpha(loss, class_counts)
    return Criterion(
        assigner=build_assigner(loss.assigner),
        classification=build_classification(loss, alpha, len(class_counts)),
        box=loss.box,
        beta=loss.beta,
        box_weight=loss.box_weight,
        box_weighting=loss.box_weighting,
        statistics=statistics,
        sample_every=sample_every,
    )


def set_class_weights(criterion: Criterion, loss: LossConfig, class_counts: np.ndarray, *, deferred: bool) -> None:
    """Let the positives of each class weigh what `loss.alpha` says, or, while that is `deferred`, all what auto says.

    Deferred re-weighting (LDAM-DRW, arXiv 1906.07413, algorithm 1). The state of the loss is kept. Nothing changes
    where `loss.alpha` is not by class. class_counts: as for `build_criterion`.
    """
    if not loss.alpha_is_by_class:
        return
    number = len(class_counts)
    alpha = unweighted_alpha(loss, number) if deferred else resolve_alpha(loss, class_counts)
    present = criterion.classification
    weighted = build_classification(loss, alpha, number)
    weighted.load_state_dict(present.state_dict())
    device = next(criterion.buffers()).device
    criterion.classification = weighted.to(device).train(present.training)
