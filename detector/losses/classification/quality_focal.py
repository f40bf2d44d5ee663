"""Quality focal loss: Li et al., Generalized Focal Loss, arXiv 2006.04388.

    QFL(p) = -|y - p|^beta ((1 - y) log(1 - p) + y log(p))                                  (eq. 3)

y is 0 for negatives. For positives it is the IoU of the predicted box with its object, so that the score also says how
good the box is; or the assigner's soft target (TOOD, arXiv 2108.07755). beta, here called gamma, is 2 in the paper;
there is no alpha.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.losses.classification.one_pass import (
    Factor,
    Formula,
    OnePassLoss,
    for_classes,
    power,
    set_factor,
    soft_cross_entropy,
)


class QualityFocal(OnePassLoss):
    """gamma: one number, or K, one per class. weight: a factor of the positives, likewise; 1 in the paper."""

    needs_quality = True
    has_alpha = False
    gamma: Factor
    weight: Factor

    def __init__(self, *, gamma: float | Sequence[float] = 2.0, weight: float | Sequence[float] = 1.0):
        super().__init__()
        set_factor(self, "gamma", gamma)
        set_factor(self, "weight", weight)

    def formula(self) -> Formula:
        gamma, weight = self.gamma, self.weight

        def positive_term(x: Tensor, classes: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
            assert quality is not None
            exponent = for_classes(gamma, classes)
            entropy, error = soft_cross_entropy(x, quality)
            distance = error.abs().clamp(min=torch.finfo(x.dtype).tiny)  # 0 to a negative power would be infinite
            own = for_classes(weight, classes)
            modulation = own * power(error.abs(), exponent)
            slope = own * exponent * power(distance, exponent - 1) * error.sign() * torch.sigmoid(x) * torch.sigmoid(-x)
            return (modulation * entropy).to(x.dtype), (modulation * error + slope * entropy).to(x.dtype)

        return Formula(gamma, 1.0, positive_term)
