"""Assigners decide which anchors are positive. To add one: a file here, a line in ASSIGNERS,
and its settings in config/loss.py:AssignerConfig."""

from __future__ import annotations

from collections.abc import Callable

from detector.config.loss import AssignerConfig
from detector.losses.assigners.assignment import Assigner
from detector.losses.assigners.atss import ATSSAssigner
from detector.losses.assigners.max_iou import MaxIoUAssigner
from detector.losses.assigners.tal import TaskAlignedAssigner
from detector.utils.nearest import lookup

ASSIGNERS: dict[str, Callable[[AssignerConfig], Assigner]] = {  # loss.assigner.name → how to build it
    "max_iou": lambda c: MaxIoUAssigner(c.positive_iou, c.negative_iou, low_quality=c.low_quality),
    "atss": lambda c: ATSSAssigner(c.atss_topk, every_object=c.every_object),
    "tal": lambda c: TaskAlignedAssigner(c.tal_topk, c.tal_alpha, c.tal_beta, every_object=c.every_object),
}


def build_assigner(config: AssignerConfig) -> Assigner:
    """The assigner that `loss.assigner.name` names. Raises InputError for an unknown name."""
    return lookup(ASSIGNERS, config.name, "loss.assigner.name")(config)
