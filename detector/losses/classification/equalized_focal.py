"""Equalized focal loss: Li et al., Equalized Focal Loss for Dense Long-Tailed Object Detection, arXiv 2201.02593.

    EFL(p_t) = -alpha_t sum_j (gamma_j / gamma_b) (1 - p_t)^gamma_j log(p_t)                (eq. 5)
    gamma_j = gamma_b + s (1 - g_j)                                                         (eq. 4)

g_j, between 0 and 1, is the ratio of all the gradient that class j's positives have had by now to what its negatives
have had. A rare class, which is mostly pushed down, has a small one: a large gamma_j, so that its easy negatives push
it less, and a weight that makes up for what that takes from its hard examples.

The gradient meant is that of this very loss (with its weights and alpha) by the logits, absolute values summed over
the anchors that are not ignored; so in the authors' code (United-Perception, plugins/efl), which takes it from a hook
on the last convolution. Here it is the analytic one, summed in float32 before any rounding to the logits' precision,
and of the summed loss, so that a batch done in parts counts like a whole one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.losses.classification.focal import ALPHA, focal_formula, positive_and_negative, set_factor
from detector.losses.classification.one_pass import ClassificationLoss, Formula
from detector.utils.dist import sum_across_processes

# Gradient that the positives and the negatives of each class are taken to have had at the start, so that the ratios
# begin at 1 and the first batches move them little. A positive not yet learnt gives about ALPHA: as much as 40 of them.
PRIOR_GRADIENT = 10.0


class EqualizedFocal(ClassificationLoss):
    """gamma: gamma_b, above 0; alpha: as for `Focal`. scale: s, what a class without any positive gradient gets more.

    Starts as the focal loss (all ratios 1). Before the first object of a class nothing is known about its balance, so
    its negatives only count from then on: a class not yet seen is treated as balanced, not as the rarest.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: float | Sequence[float] | None = ALPHA,
        gamma: float | Sequence[float] = 2.0,
        scale: float = 8.0,
    ):
        super().__init__()
        positive, self.negative = positive_and_negative(alpha)
        set_factor(self, "positive", positive)
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

    def observe(self, logits: Tensor, classes: Tensor, gradient_sums: Tensor) -> None:
        positive, negative = sum_across_processes(gradient_sums.to(self.positive_gradient.dtype))
        self.positive_gradient += positive
        self.negative_gradient += torch.where(self.positive_gradient > 0, negative, 0)
