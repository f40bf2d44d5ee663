"""Focal loss whose gamma follows the training: Weber et al., Automated Focal Loss for Image based Object Detection,
arXiv 1904.09048.

    gamma = -log(E[probability of the right answer])

The expectation is a running mean over the training's batches. It is taken over the positives alone: the background, a
thousand times as many, is answered rightly from the first step on, and with it gamma would be 0 throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detector.losses.classification.focal import ALPHA, focal_formula, positive_and_negative, set_factor
from detector.losses.classification.one_pass import ClassificationLoss, Formula, positive_pairs
from detector.utils.dist import sum_across_processes

MOMENTUM = 0.95  # of the running mean, a batch
FLOOR = 0.5  # the least gamma: with less, what is left of the loss of all the background outweighs the objects


class AdaptiveFocal(ClassificationLoss):
    """alpha: as for `Focal`. gamma: what it starts with; the running mean starts accordingly."""

    def __init__(self, *, alpha: float | Sequence[float] | None = ALPHA, gamma: float = 2.0):
        super().__init__()
        positive, self.negative = positive_and_negative(alpha)
        set_factor(self, "positive", positive)
        self.register_buffer("right", torch.tensor(math.exp(-gamma)))  # () float32

    @property
    def gamma(self) -> Tensor:
        """() float32: the exponent now."""
        return -self.right.log().clamp(max=-FLOOR)

    def formula(self) -> Formula:
        return focal_formula(self.positive, self.negative, self.gamma)

    def figures(self) -> dict[str, float]:
        return {"gamma": self.gamma.item()}

    def observe(self, logits: Tensor, classes: Tensor, gradient_sums: None) -> None:
        pairs, _, positive = positive_pairs(classes.reshape(-1), logits.shape[-1])
        right = torch.where(positive, logits.reshape(-1)[pairs].float().sigmoid(), 0).sum()
        right, count = sum_across_processes(torch.stack([right, positive.sum().float()]))
        mean = torch.where(count > 0, right / count, self.right)  # a batch without objects says nothing
        self.right.copy_(torch.lerp(mean, self.right, MOMENTUM).clamp(min=torch.finfo(torch.float32).tiny))
