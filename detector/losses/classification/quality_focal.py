"""Quality focal loss: Li et al., Generalized Focal Loss, arXiv 2006.04388.

    QFL(p) = -|y - p|^beta ((1 - y) log(1 - p) + y log(p))                                  (eq. 3)

y is 0 for negatives, and for positives the IoU of the predicted box with its object's, so that the score says how good
the box is. beta, here called gamma, is 2 in the paper; there is no alpha.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.losses.classification.focal import set_factor
from detector.losses.classification.one_pass import ClassificationLoss, Formula, at, power, soft_cross_entropy


class QualityFocal(ClassificationLoss):
    """gamma: a number, or K, one a class."""

    needs_quality = True

    def __init__(self, *, gamma: float | Sequence[float] = 2.0):
        super().__init__()
        set_factor(self, "gamma", gamma)

    def formula(self) -> Formula:
        gamma = self.gamma

        def positive_term(x: Tensor, classes: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
            exponent = at(gamma, classes)
            entropy, error = soft_cross_entropy(x, quality)
            distance = error.abs().clamp(min=torch.finfo(x.dtype).tiny)  # for exponents below 1
            modulation = power(error.abs(), exponent)
            slope = exponent * power(distance, exponent - 1) * error.sign() * torch.sigmoid(x) * torch.sigmoid(-x)
            return (modulation * entropy).to(x.dtype), (modulation * error + slope * entropy).to(x.dtype)

        return Formula(gamma, 1.0, positive_term)
