"""Classification losses. To add one: a file here, and a line in CLASSIFICATION_LOSSES.

Write it as a plain function (autograd.DifferentiableLoss), or, if it must be as fast as the others, with its derivative
(one_pass.OnePassLoss).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from detector.config.loss import LossConfig
from detector.losses.classification.adaptive_focal import AdaptiveFocal
from detector.losses.classification.base import ClassificationLoss
from detector.losses.classification.equalized_focal import EqualizedFocal
from detector.losses.classification.focal import Focal, best_alpha
from detector.losses.classification.quality_focal import QualityFocal
from detector.losses.classification.varifocal import Varifocal
from detector.utils.errors import InputError
from detector.utils.nearest import lookup

Alpha = float | list[float] | None  # loss.alpha as numbers: see losses/class_alpha.py
Builder = Callable[[LossConfig, Alpha, int], ClassificationLoss]  # settings, alpha, number of classes → the loss

CLASSIFICATION_LOSSES: dict[str, Builder] = {  # loss.classification → how to build it
    "focal": lambda c, alpha, k: Focal(alpha=alpha, gamma=c.gamma),
    "cross_entropy": lambda c, alpha, k: Focal(alpha=alpha, gamma=gamma_of(c)),
    "quality_focal": lambda c, alpha, k: QualityFocal(gamma=c.gamma, weight=relative_to_auto(c, alpha)),
    "varifocal": lambda c, alpha, k: Varifocal(gamma=c.gamma, weight=relative_to_auto(c, alpha)),
    "adaptive_focal": lambda c, alpha, k: AdaptiveFocal(alpha="auto" if c.alpha == "auto" else alpha, gamma=c.gamma),
    "equalized_focal": lambda c, alpha, k: EqualizedFocal(k, alpha=alpha, gamma=c.gamma, scale=c.equalized_scale),
}


def gamma_of(loss: LossConfig) -> float | list[float]:
    """The gamma that the loss has, or begins with."""
    return 0.0 if loss.classification == "cross_entropy" else loss.gamma


def relative_to_auto(loss: LossConfig, alpha: Alpha) -> float | list[float]:
    """Weights by class as factors of a loss without alpha: 1 stands for that of auto. 1 where none are by class."""
    if not loss.alpha_is_by_class:
        return 1.0
    return (torch.tensor(alpha) / best_alpha(gamma_of(loss))).tolist()


def build_classification(loss: LossConfig, alpha: Alpha, num_classes: int) -> ClassificationLoss:
    """The loss that `loss.classification` names, with the weights `alpha` of positives (`loss.alpha` as numbers).

    Raises InputError for an unknown name, and for settings that the loss cannot use.
    """
    built = lookup(CLASSIFICATION_LOSSES, loss.classification, "loss.classification")(loss, alpha, num_classes)
    if loss.alpha_is_by_class and not built.takes_alpha_by_class:
        raise InputError(
            f"loss.alpha: {loss.classification} has weights of its own and takes none by class; set it to auto"
        )
    return built
