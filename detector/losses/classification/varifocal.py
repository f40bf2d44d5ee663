"""Varifocal loss: Zhang et al., VarifocalNet, arXiv 2008.13367.

    VFL(p, q) = -q (q log(p) + (1 - q) log(1 - p))    for q > 0
                -alpha p^gamma log(1 - p)             for q = 0                             (eq. 2)

q is 0 for negatives, and for positives the IoU of the predicted box with its object, or the assigner's soft target: a
positive with a better box weighs more, and only easy negatives are weighed down. The paper's alpha, 0.75, weighs the
negatives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.losses.classification.one_pass import (
    Factor,
    Formula,
    OnePassLoss,
    background_term,
    for_classes,
    set_factor,
    soft_cross_entropy,
)

NEGATIVE_WEIGHT = 0.75


class Varifocal(OnePassLoss):
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
            entropy, error = soft_cross_entropy(x, quality)
            loss, derivative = background_term(x, for_classes(gamma, classes), NEGATIVE_WEIGHT)
            positive, own = quality > 0, for_classes(weight, classes) * quality
            loss = torch.where(positive, own * entropy, loss)
            return loss.to(x.dtype), torch.where(positive, own * error, derivative).to(x.dtype)

        return Formula(gamma, NEGATIVE_WEIGHT, positive_term)
