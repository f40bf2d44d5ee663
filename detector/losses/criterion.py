"""Outputs and targets → the summed losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.config.schema import LossConfig
from detector.losses.assigners import build_assigner
from detector.losses.assigners.assignment import Assigner
from detector.losses.box import BOX_LOSSES, box_loss
from detector.losses.class_alpha import resolve_alpha, unweighted_alpha
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

    box: an entry of BOX_LOSSES; beta: of smooth_l1; box_weight: a factor of the box loss.
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
        statistics: ClassStatistics | None = None,
        sample_every: int = 20,
    ):
        super().__init__()
        lookup(BOX_LOSSES, box, "loss.box")  # an unknown name fails here, not in the first step
        self.assigner = assigner
        self.classification = classification or Focal()
        self.box, self.beta, self.box_weight = box, beta, box_weight
        self.statistics, self.sample_every = statistics, sample_every

    def forward(self, outputs: dict[str, Any], targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        """outputs: logits (N, R, K), deltas (N, R, 4), anchors (R, 4) xyxy pixels, and what else the assigner needs.
        targets: N dicts with boxes (M, 4) xyxy pixels and labels (M,) int64.

        Returns float32 scalars: the sums loss_cls and loss_box (times `box_weight`), and num_positives, the number of
        positive anchors. All three are of this batch in this process, so they can be added up over the batches of an
        optimizer step; `training/engine.py:_update` then divides by max(1, positives of the step). With W processes
        whose gradients are averaged, that normaliser is max(1, sum of the positives over the processes) / W.
        """
        classes, objects, boxes = self.assigner(outputs, targets)
        image, anchor = (classes >= 0).nonzero(as_tuple=True)  # CPU-GPU sync point
        deltas, anchors = outputs["deltas"][image, anchor], outputs["anchors"][anchor]
        boxes = boxes[image, objects[image, anchor]]
        quality = _quality(deltas, anchors, boxes) if self.classification.needs_quality else None
        if self.statistics is not None:  # before the classification loss updates its state
            everything = int(self.statistics.batches) % self.sample_every == 0  # CPU-GPU sync point
            logits = outputs["logits"].detach()
            self.statistics.observe(
                self.classification, logits, classes, (image, anchor), quality, everything=everything
            )
        return {
            "loss_cls": self.classification(outputs["logits"], classes, quality),
            "loss_box": self.box_weight * box_loss(deltas, anchors, boxes, name=self.box, beta=self.beta),
            "num_positives": classes.new_tensor(len(image)).float(),
        }


@torch.no_grad()
def _quality(deltas: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
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
    alpha = resolve_alpha(loss, class_counts, class_names)
    return Criterion(
        assigner=build_assigner(loss.assigner),
        classification=build_classification(loss, alpha, len(class_counts)),
        box=loss.box,
        beta=loss.beta,
        box_weight=loss.box_weight,
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
