"""Equalized focal loss: Li et al., Equalized Focal Loss for Dense Long-Tailed Object Detection, arXiv 2201.02593.

    EFL(p_t) = -alpha_t sum_j (gamma_j / gamma_b) (1 - p_t)^gamma_j log(p_t)                (eq. 5)
    gamma_j = gamma_b + s (1 - g_j)                                                         (eq. 4)

g_j, between 0 and 1, is the gradient of class j's positives over that of its negatives, both accumulated since the
start of the training. A rare class is mostly pushed down, so its g_j is small. Then its gamma_j is large, so that easy
negatives push it less, and its weight makes up for what that takes from hard examples.

The gradient is that of this loss (with its weights and alpha) by the logits: absolute values, summed over the anchors
that are not ignored. The authors' code (United-Perception, plugins/efl) takes the same from a hook on the last
convolution. Here it is analytic: summed in float32 before any rounding to the logits' precision, and of the summed
loss, so that a batch computed in parts counts like a whole one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.losses.classification.focal import ALPHA, alpha_weights, focal_formula
from detector.losses.classification.one_pass import Factor, Formula, OnePassLoss, set_factor
from detector.utils.dist import sum_across_processes
from detector.utils.errors import InputError

# Each class starts with this much gradient on both sides, so that the ratios begin at 1 and the first batches move them
# little. A positive that is not yet learnt gives about ALPHA, so this is as much as 40 of them.
PRIOR_GRADIENT = 10.0


class EqualizedFocal(OnePassLoss):
    """gamma: gamma_b, one number or K, one per class. alpha: see `alpha_weights`. scale: s in eq. 4.

    Starts as the focal loss (all ratios 1). The negatives of a class count from its first object on: before that,
    nothing is known about its balance, so it is treated as balanced, not as the rarest.
    Raises InputError if a gamma is 0.
    """

    positive: Factor
    negative: Factor
    base_gamma: Factor
    positive_gradient: Tensor
    negative_gradient: Tensor

    balances_classes = True

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: float | Sequence[float] | None = ALPHA,
        gamma: float | Sequence[float] = 2.0,
        scale: float = 8.0,
    ):
        super().__init__()
        if 0 in ([gamma] if isinstance(gamma, (int, float)) else gamma):
            raise InputError("loss.gamma: equalized_focal divides by it, so it must be above 0")
        positive, negative = alpha_weights(alpha, gamma)
        set_factor(self, "positive", positive)
        set_factor(self, "negative", negative)
        set_factor(self, "base_gamma", gamma)
        self.scale = scale
        self.register_buffer("positive_gradient", torch.zeros(num_classes))
        self.register_buffer("negative_gradient", torch.zeros(num_classes))

    @property
    def ratio(self) -> Tensor:
        """(K,) float32 in 0..1: g_j."""
        ratio = (self.positive_gradient + PRIOR_GRADIENT) / (self.negative_gradient + PRIOR_GRADIENT)
        return ratio.clamp(max=1)

    @property
    def gamma(self) -> Tensor:
        """(K,) float32: gamma_j."""
        return self.base_gamma + self.scale * (1 - self.ratio)

    def formula(self) -> Formula:
        gamma = self.gamma
        weight = gamma / self.base_gamma
        return focal_formula(self.positive * weight, self.negative * weight, gamma, gradient_sums=True)

    def observe(self, logits: Tensor, classes: Tensor, gradient_sums: Tensor | None) -> None:
        assert gradient_sums is not None
        positive, negative = sum_across_processes(gradient_sums.to(self.positive_gradient.dtype))
        self.positive_gradient += positive
        self.negative_gradient += torch.where(self.positive_gradient > 0, negative, 0)
