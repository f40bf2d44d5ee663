"""Focal loss whose gamma falls while the objects are learnt, after Weber et al., Automated Focal Loss for Image based
Object Detection, arXiv 1904.09048.

    gamma = -log(mean p_t), from FLOOR to the gamma that is given       p_t: the probability of the right answer

Others' code for the paper has this formula and the same running mean, of all pairs or of the positive ones. Here it is
of the positive ones. Of all pairs it would be 0.99 from the first step on, because all scores start at the prior, 0.01:
gamma would stay at 0.01, and the loss would be cross entropy. The bounds are this project's own. Without the upper one,
gamma would first rise to -log(0.01) = 4.6, and a gamma of 5 was worse than 2 wherever it was measured
(docs/imbalance.md).

So gamma stays as given until the mean score of the positives on their own classes passes exp(-gamma), 0.14 for 2. Then
it falls, to FLOOR at a mean of 0.61. Where the scores fall, it rises again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from detector.losses.classification.focal import alpha_weights, best_alpha, focal_formula
from detector.losses.classification.one_pass import Factor, Formula, OnePassLoss, positive_pairs, set_factor
from detector.utils.dist import sum_across_processes
from detector.utils.errors import InputError

MOMENTUM = 0.95  # of the running mean, for each batch
FLOOR = 0.5  # the least gamma: with less, the loss of all the easy background outweighs that of the objects


class AdaptiveFocal(OnePassLoss):
    """gamma: the greatest, and the first. Raises InputError for a gamma per class.

    alpha: auto follows the present gamma (`best_alpha`). K numbers, the weights of each class's positives at the first
    gamma, keep their ratios to that; the negatives weigh as with auto. One number and None do not move, see
    `alpha_weights`.
    """

    positive: Factor
    negative: Factor
    relative: Factor  # to the alpha of auto
    right: Tensor

    def __init__(
        self,
        *,
        alpha: float | Sequence[float] | Literal["auto"] | None = "auto",
        gamma: float | Sequence[float] = 2.0,
    ):
        super().__init__()
        if not isinstance(gamma, (int, float)):
            raise InputError("loss.gamma: adaptive_focal adapts one gamma for all classes; give one number, not a list")
        self.greatest = float(gamma)
        self.least_gamma = FLOOR if gamma > FLOOR else None
        self.alpha_follows = not (alpha is None or isinstance(alpha, (int, float)))
        if alpha is None or isinstance(alpha, (int, float)):
            positive, negative = alpha_weights(alpha, gamma)
            set_factor(self, "positive", positive)
            set_factor(self, "negative", negative)
        else:
            first = best_alpha(gamma).item()
            set_factor(self, "relative", 1.0 if alpha == "auto" else [one / first for one in alpha])
        self.register_buffer("right", torch.tensor(math.exp(-gamma)))  # () float32: the running mean of p_t

    @property
    def gamma(self) -> Tensor:
        """() float32: the present exponent."""
        return (-self.right.log()).clamp(min=FLOOR, max=self.greatest)  # where these cross, the greatest wins

    def formula(self) -> Formula:
        gamma = self.gamma
        if self.alpha_follows:
            alpha = best_alpha(gamma)
            return focal_formula(alpha * self.relative, 1 - alpha, gamma)
        return focal_formula(self.positive, self.negative, gamma)

    def figures(self) -> dict[str, float]:
        return {"gamma": self.gamma.item()}

    def observe(self, logits: Tensor, classes: Tensor, gradient_sums: Tensor | None) -> None:
        pairs, _, positive = positive_pairs(classes.reshape(-1), logits.shape[-1])
        right = torch.where(positive, logits.reshape(-1)[pairs].float().sigmoid(), 0).sum()
        right, count = sum_across_processes(torch.stack([right, positive.sum().float()]))
        mean = torch.where(count > 0, right / count, self.right)  # a batch without objects changes nothing
        self.right.copy_(torch.lerp(mean, self.right, MOMENTUM).clamp(min=torch.finfo(torch.float32).tiny))
