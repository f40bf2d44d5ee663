"""The section `loss`: which anchors learn what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detector.config.section import Choice, Fraction, NonNegative, Positive, PositiveInt, Section

BoxWeighting = Literal["assigner", "score", "iou"]


class AssignerConfig(Section):
    """Which anchors are positive, for which object. A setting for another assigner than the named one does nothing."""

    name: Choice = "max_iou"
    """What decides which anchors are positive (docs/configuration.md explains each)."""
    positive_iou: Fraction = 0.5
    """For max_iou: an anchor whose best IoU is at least this is positive."""
    negative_iou: Fraction = 0.4
    """For max_iou: an anchor whose best IoU is below this is background; between the two it is ignored."""
    low_quality: bool = True
    """For max_iou: the anchors with the greatest IoU of an object are positive too, however small that is (as in
    torchvision)."""
    atss_topk: PositiveInt = 9
    """For atss: the cells on each level, nearest to an object's centre, whose anchors are its candidates."""
    tal_topk: PositiveInt = 13
    """For tal: the anchors that an object takes."""
    tal_alpha: NonNegative = 1.0
    """For tal: an object takes the anchors with the greatest score^alpha x IoU^beta."""
    tal_beta: Positive = 6.0
    """For tal: see tal_alpha."""
    every_object: bool = False
    """For atss and tal: an object so small that it holds no anchor's centre takes the anchors that fit it best, instead
    of none as in the papers."""

    @model_validator(mode="after")
    def _ordered(self) -> AssignerConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError(f"negative_iou ({self.negative_iou}) is above positive_iou ({self.positive_iou})")
        return self


class LossConfig(Section):
    """The losses, and the weights of classes in them."""

    alpha: (
        Fraction
        | Annotated[list[Fraction], Field(min_length=1)]
        | Literal["auto", "inverse_frequency", "effective_number"]
        | None
    ) = "auto"
    """Weight of positives in the classification loss; negatives weigh 1 - alpha; null: no weights. auto: what suits
    gamma in the focal loss paper (table 1b): 0.75 at 0, 0.5 at 0.5, 0.25 from 1 on, between by interpolation; printed.
    Or one weight per class, in the order of the classes, or weights from the boxes of each class in an epoch: that of
    auto for the commonest, at most three times that. quality_focal and varifocal have no alpha: there, weights by class
    are relative to that of auto, which is 1."""
    defer_alpha: Fraction = 0.0
    """Part of the training before weights by class apply; until then alpha is auto for all (deferred re-weighting)."""
    gamma: NonNegative | Annotated[list[NonNegative], Field(min_length=1)] = 2.0
    """Focusing parameter, one for all or one per class. A larger gamma gives easy anchors less weight."""
    classification: Choice = "focal"
    """The classification loss (docs/imbalance.md explains each)."""
    effective_beta: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """For alpha effective_number: 0 weighs all classes alike, towards 1 it becomes inverse_frequency."""
    equalized_scale: NonNegative = 8.0
    """For equalized_focal: what a class without any positive gradient adds to gamma; 0 is focal."""
    box: Choice = "smooth_l1"
    """The box loss. smooth_l1 compares deltas; the IoU losses compare decoded boxes."""
    beta: NonNegative = 0.0
    """Where smooth_l1 turns from quadratic to linear; 0 is L1 (detectron2, torchvision v1)."""
    box_weight: Positive = 1.0
    """Weight of the box loss in the sum."""
    box_weighting: BoxWeighting = "assigner"
    """What weighs the box losses of positives against each other. assigner: what it gives (tal: the alignment; the
    others: all alike). score: the anchor's greatest score, as in the paper of quality_focal. iou: of predicted box and
    object, as in the paper of varifocal. The weights are scaled within a batch of a process, not over a step."""
    assigner: AssignerConfig = AssignerConfig()

    @property
    def alpha_is_by_class(self) -> bool:
        """Whether `alpha` weighs the classes against each other."""
        return isinstance(self.alpha, list) or self.alpha in ("inverse_frequency", "effective_number")
