"""Focal loss whose gamma follows the training: Weber et al., Automated Focal Loss for Image based Object Detection,
arXiv 1904.09048.

    gamma = -log(E[p_t])                                        p_t: the probability of the right answer

The expectation is a running mean over the batches of the training. It is taken over the positives alone: the
background, a thousand times as many, is easy from the first step on, and would keep gamma at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detector.losses.classification.focal import ALPHA, alpha_weights, focal_formula
from detector.losses.classification.one_pass import Factor, Formula, OnePassLoss, positive_pairs, set_factor
from detector.utils.dist import sum_across_processes
from detector.utils.errors import InputError

MOMENTUM = 0.95  # of the running mean, for each batch
FLOOR = 0.5  # the least gamma: with less, the loss of all the easy background outweighs that of the objects


class AdaptiveFocal(OnePassLoss):
    """alpha: see `alpha_weights`. gamma: what it starts with. Raises InputError for a gamma per class."""

    positive: Factor
    negative: float
    right: Tensor

    def __init__(self, *, alpha: float | Sequence[float] | None = ALPHA, gamma: float | Sequence[float] = 2.0):
        super().__init__()
        if not isinstance(gamma, (int, float)):
            raise InputError("loss.gamma: adaptive_focal adapts one gamma for all classes; give one number, not a list")
        positive, self.negative = alpha_weights(alpha)
        set_factor(self, "positive", positive)
        self.register_buffer("right", torch.tensor(math.exp(-gamma)))  # () float32: the running mean of p_t

    @property
    def gamma(self) -> Tensor:
        """() float32: the present exponent."""
        return -self.right.log().clamp(max=-FLOOR)

    def formula(self) -> Formula:
        return focal_formula(self.positive, self.negative, self.gamma)

    def figures(self) -> dict[str, float]:
        return {"gamma": self.gamma.item()}

    def observe(self, logits: Tensor, classes: Tensor, gradient_sums: Tensor | None) -> None:
        pairs, _, positive = positive_pairs(classes.reshape(-1), logits.shape[-1])
        right = torch.where(positive, logits.reshape(-1)[pairs].float().sigmoid(), 0).sum()
        right, count = sum_across_processes(torch.stack([right, positive.sum().float()]))
        mean = torch.where(count > 0, right / count, self.right)  # a batch without objects changes nothing
        self.right.copy_(torch.lerp(mean, self.right, MOMENTUM).clamp(min=torch.finfo(torch.float32).tiny))
