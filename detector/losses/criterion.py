"""Outputs + targets -> named losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from detector.losses.assigners.max_iou import MaxIoUAssigner
from detector.losses.box import box_loss, iou
from detector.losses.class_alpha import resolve_alpha
from detector.losses.class_statistics import ClassStatistics
from detector.losses.classification.adaptive_focal import AdaptiveFocal
from detector.losses.classification.equalized_focal import EqualizedFocal
from detector.losses.classification.focal import Focal
from detector.losses.classification.one_pass import ClassificationLoss
from detector.losses.classification.quality_focal import QualityFocal
from detector.losses.classification.varifocal import Varifocal
from detector.ops.boxes import decode
from detector.utils.dist import mean_across_processes
from detector.utils.errors import InputError


class Criterion(nn.Module):
    """Classification loss over all anchors (the focal loss, if none is given) and box loss over the positive ones, both
    divided by the number of positives of the global batch (at least 1): RetinaNet section 4.1.

    Its state is the classification loss's, if that has one, and the statistics of the epoch: part of a checkpoint.

    statistics: to be kept in training, None = none; all anchors are looked at every `sample_every` batches.
    """

    def __init__(
        self,
        *,
        assigner: MaxIoUAssigner,
        classification: ClassificationLoss | None = None,
        box: str = "smooth_l1",
        beta: float = 0.0,
        box_weight: float = 1.0,
        statistics: ClassStatistics | None = None,
        sample_every: int = 20,
    ):
        super().__init__()
        self.assigner = assigner
        self.classification = classification or Focal()
        self.box, self.beta, self.box_weight = box, beta, box_weight
        self.statistics, self.sample_every = statistics, sample_every

    def forward(self, outputs: dict, targets: list[dict]) -> dict[str, Tensor]:
        """outputs: logits (N, R, K), deltas (N, R, 4), anchors (R, 4) xyxy. targets: N dicts, boxes and labels.

        Returns float32 scalars: loss_cls, loss_box, and num_positives, by which both were divided where it is not 0.
        """
        classes, objects, boxes = self.assigner(outputs["anchors"], targets)
        image, anchor = (classes >= 0).nonzero(as_tuple=True)  # CPU-GPU sync point, as is the next `int`
        num_positives = mean_across_processes(classes.new_tensor(len(image)).float())
        normaliser = num_positives.clamp(min=1)

        deltas, anchors = outputs["deltas"][image, anchor], outputs["anchors"][anchor]
        boxes = boxes[image, objects[image, anchor]]
        quality = _quality(deltas, anchors, boxes) if self.classification.needs_quality else None
        if self.statistics is not None:
            everything = int(self.statistics.batches) % self.sample_every == 0
            logits = outputs["logits"].detach()
            self.statistics.observe(
                self.classification, logits, classes, (image, anchor), quality, everything=everything
            )
        loss_cls = self.classification(outputs["logits"], classes, quality)
        loss_box = box_loss(deltas, anchors, boxes, kind=self.box, beta=self.beta)
        return {
            "loss_cls": loss_cls / normaliser,
            "loss_box": self.box_weight * loss_box / normaliser,
            "num_positives": num_positives,
        }


@torch.no_grad()
def _quality(deltas: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
    """(P,) float32 in 0..1: IoU of predicted boxes and objects."""
    return iou(decode(deltas, anchors), boxes)


def build_criterion(
    loss,
    class_counts: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    statistics: ClassStatistics | None = None,
    sample_every: int = 20,
) -> Criterion:
    """The criterion of a LossConfig, for data with so many boxes of each of K classes (K,), called so.

    Without them, only a loss that is the same for all classes. Raises InputError if a list is not one value a class.
    """
    return Criterion(
        assigner=MaxIoUAssigner(**loss.assigner.model_dump()),
        classification=_build_classification(loss, class_counts, class_names),
        box=loss.box,
        beta=loss.beta,
        box_weight=loss.box_weight,
        statistics=statistics,
        sample_every=sample_every,
    )


def _build_classification(loss, class_counts, class_names) -> ClassificationLoss:
    alpha = resolve_alpha(loss.alpha, loss.effective_beta, class_counts)
    for name, values in (("alpha", alpha), ("gamma", loss.gamma)):
        if class_counts is not None and isinstance(values, list) and len(values) != len(class_counts):
            names = "" if class_names is None else f" ({', '.join(class_names)})"
            raise InputError(
                f"loss.{name} has {len(values)} values, one a class, and the data {len(class_counts)} classes{names}"
            )
    if loss.classification == "focal":
        return Focal(alpha=alpha, gamma=loss.gamma)
    if loss.classification == "cross_entropy":
        return Focal(alpha=alpha, gamma=0.0)
    if loss.classification == "quality_focal":
        return QualityFocal(gamma=loss.gamma)
    if loss.classification == "varifocal":
        return Varifocal(gamma=loss.gamma)
    if loss.classification == "adaptive_focal":
        return AdaptiveFocal(alpha=alpha, gamma=loss.gamma)
    assert loss.classification == "equalized_focal" and class_counts is not None
    return EqualizedFocal(len(class_counts), alpha=alpha, gamma=loss.gamma, scale=loss.equalized_scale)
