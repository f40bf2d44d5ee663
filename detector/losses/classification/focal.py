"""Sigmoid focal loss: Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002.

    FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t)                                             (eq. 5)

p_t is the probability of the right answer: p for the class of a positive anchor, 1 - p for everything else. gamma 0 is
(alpha-balanced) cross entropy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from detector.losses.classification.one_pass import (
    Factor,
    Formula,
    OnePassLoss,
    SummedLoss,
    for_classes,
    power,
    set_factor,
    softplus,
)

Reduction = Literal["none", "mean", "sum"]
ALPHA = 0.25  # the paper's, best with gamma 2 (table 1b)


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | None = ALPHA,
    gamma: float = 2.0,
    reduction: Reduction = "none",
) -> Tensor:
    """Focal loss of logits and 0/1 targets of one shape: arguments and values of torchvision.ops.sigmoid_focal_loss.

    The gradient is finite at any logit, too. inputs: logits of any shape, float. targets: the same shape, 0 or 1, any
    dtype. alpha, 0..1, weighs the positives and 1 - alpha the negatives; None, torchvision's -1, means no weights.
    gamma: 0 or more. reduction: "none" (a loss for each entry), "mean" or "sum". Raises ValueError for any other value
    of these, and if shapes differ. `dense_focal_loss` is for class ids.
    """
    _check(alpha, gamma, reduction)
    alpha = None if alpha == -1 else alpha
    if inputs.shape != targets.shape:
        raise ValueError(
            f"inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)} differ in shape: targets are 0 or 1 for "
            "each class; dense_focal_loss takes class ids"
        )
    positive = targets > 0.5
    wrong = torch.where(positive, -inputs, inputs)  # logit of the wrong answer: sigmoid(wrong) = 1 - p_t
    loss = torch.exp(-gamma * softplus(-wrong)) * softplus(wrong)
    if alpha is not None:
        loss = loss * torch.where(positive, alpha, 1.0 - alpha)
    return loss if reduction == "none" else getattr(loss, reduction)()


class FocalLoss(nn.Module):
    """`sigmoid_focal_loss` as a module, whose reduction is "mean" by default, as that of torch's losses.

    Raises ValueError for the same values.
    """

    def __init__(self, gamma: float = 2.0, alpha: float | None = ALPHA, reduction: Reduction = "mean"):
        super().__init__()
        _check(alpha, gamma, reduction)
        self.gamma, self.alpha, self.reduction = gamma, alpha, reduction

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits: any shape, float. labels: the same shape, 0 or 1, any dtype. Raises ValueError if shapes differ."""
        return sigmoid_focal_loss(logits, labels, self.alpha, self.gamma, self.reduction)


def dense_focal_loss(logits: Tensor, classes: Tensor, *, alpha: float | None = ALPHA, gamma: float = 2.0) -> Tensor:
    """Focal loss of dense predictions, from class ids, summed over all anchors and classes.

    It is `sigmoid_focal_loss(logits, one_hot, alpha, gamma, "sum")`, many times faster, without one-hot targets; divide
    it by the number of positives, as the paper does. logits: (..., K) float. classes: (...) int64, each anchor's class
    0..K-1, or BACKGROUND (-1), or IGNORED (-2: no loss, no gradient). alpha, gamma: as there. Returns a scalar: float64
    for float64 logits, else float32. Raises ValueError if the shapes do not fit, a class is not below K, or for another
    alpha or gamma.
    """
    _check(alpha, gamma, "sum")
    alpha = None if alpha == -1 else alpha
    if classes.is_floating_point() or (classes >= logits.shape[-1]).any():
        raise ValueError(f"classes must be whole numbers from -2 to {logits.shape[-1] - 1}, one below K")
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1.0 - alpha)
    return SummedLoss.apply(logits, classes, None, focal_formula(positive, negative, gamma))[0]


def _check(alpha: object, gamma: object, reduction: str) -> None:
    """Raise ValueError unless alpha is None, -1 or one number in 0..1, gamma one number from 0 on, and reduction one of
    three."""
    if alpha is not None and not (isinstance(alpha, int | float) and (alpha == -1 or 0 <= alpha <= 1)):
        raise ValueError(f"alpha must be one number from 0 to 1, for all classes, or None; got {alpha!r}")
    if not (isinstance(gamma, int | float) and 0 <= gamma < math.inf):
        raise ValueError(f"gamma must be one number from 0 on, got {gamma!r}")
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be none, mean or sum, got {reduction!r}")


class Focal(OnePassLoss):
    """Focal loss of dense predictions. alpha: see `alpha_weights`. gamma: one number, or K, one per class."""

    positive: Factor
    negative: Factor
    gamma: Factor

    def __init__(self, *, alpha: float | Sequence[float] | None = ALPHA, gamma: float | Sequence[float] = 2.0):
        super().__init__()
        positive, negative = alpha_weights(alpha, gamma)
        set_factor(self, "positive", positive)
        set_factor(self, "negative", negative)
        set_factor(self, "gamma", gamma)

    def formula(self) -> Formula:
        return focal_formula(self.positive, self.negative, self.gamma)


def focal_formula(positive: Factor, negative: Factor, gamma: Factor, gradient_sums: bool = False) -> Formula:
    """The focal loss with these weights of positives and of negatives."""

    def positive_term(x: Tensor, classes: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
        weight, exponent = for_classes(positive, classes), for_classes(gamma, classes)
        p, q, loss = torch.sigmoid(x), torch.sigmoid(-x), softplus(-x)
        modulation = weight * power(q, exponent)
        return (modulation * loss).to(x.dtype), (-modulation * (exponent * p * loss + q)).to(x.dtype)

    return Formula(gamma, negative, positive_term, gradient_sums)


def alpha_weights(
    alpha: float | Sequence[float] | None, gamma: float | Sequence[float]
) -> tuple[float | Sequence[float], float | Sequence[float]]:
    """The weights of positives and of negatives.

    A number: alpha and 1 - alpha. None: no weights. K numbers: each weighs the positives of its class. The negatives of
    a class then keep the weight that suits gamma, so that the weight of a class does not also change its background.
    """
    if alpha is None:
        return 1.0, 1.0
    if isinstance(alpha, (int, float)):
        return alpha, 1.0 - alpha
    return alpha, (1 - best_alpha(gamma)).tolist()


def best_alpha(gamma: Tensor | float | Sequence[float]) -> Tensor:
    """The alpha for gamma, of its shape: 0.75 at 0, 0.5 at 0.5, ALPHA from 1 on, between by interpolation.

    These are the best pairs of the paper (table 1b). The less a loss forgives the many easy negatives, the less they
    may weigh: at gamma 0 the paper has an AP of 31.1 with alpha 0.75, and of 10.8 with 0.25 (table 1a). Of numbers the
    alphas are float64.
    """
    gamma = gamma if isinstance(gamma, Tensor) else torch.tensor(gamma, dtype=torch.float64)
    return (0.75 - gamma / 2).clamp(min=ALPHA)
