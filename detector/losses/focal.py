"""Sigmoid focal loss from integer class targets: Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002.

    FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t)                                             (eq. 5)

Almost every (anchor, class) pair is background. So the background term and its gradient are computed for all
pairs, a cache-sized chunk at a time, and then corrected at the one pair of each positive anchor. No (N, R, K)
one-hot is built, autograd keeps a single tensor (the gradient itself), and nothing underflows: log p and
log(1 - p) come from softplus, never from the logarithm of a rounded p.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detector.losses.assigner import BACKGROUND, IGNORED

CPU_CHUNK = 1 << 18  # elements: the temporaries of a chunk stay in the cores' L2 caches
GPU_CHUNK = 1 << 24  # few large kernels, and still a bounded amount of memory


def sigmoid_focal_loss(logits: Tensor, classes: Tensor, *, alpha: float | None = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss, summed over all anchors and classes.

    logits: (..., K) float. classes: (...) int64, each anchor's class 0..K-1, or BACKGROUND (-1), or IGNORED
    (-2: no loss, no gradient). alpha weighs the positives and 1 - alpha the negatives; None weighs nothing, so
    that gamma=0 is exactly binary cross entropy. Returns a scalar: float64 for float64 logits, else float32.
    """
    if logits.shape[:-1] != classes.shape:
        raise ValueError(f"classes {tuple(classes.shape)} must have the shape of logits {tuple(logits.shape)} less K")
    positive_weight, negative_weight = (1.0, 1.0) if alpha is None else (alpha, 1.0 - alpha)
    return _FocalLoss.apply(logits, classes, gamma, positive_weight, negative_weight)


class FocalLoss(nn.Module):
    """Focal loss of logits and 0/1 labels of one shape, for direct use.

    reduction: "none" (a loss for each entry), "mean" or "sum".
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        reduction: Literal["none", "mean", "sum"] = "mean",
    ):
        super().__init__()
        if reduction not in ("none", "mean", "sum"):
            raise ValueError(f"reduction must be none, mean or sum, got {reduction!r}")
        self.gamma, self.alpha, self.reduction = gamma, alpha, reduction

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits: any shape, float. labels: the same shape, 0 or 1, any dtype."""
        if logits.shape != labels.shape:
            raise ValueError(f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} differ in shape")
        positive = labels > 0.5
        wrong = torch.where(positive, -logits, logits)  # logit of the wrong answer: sigmoid(wrong) = 1 - p_t
        loss = torch.exp(-self.gamma * _softplus(-wrong)) * _softplus(wrong)
        if self.alpha is not None:
            loss = loss * torch.where(positive, self.alpha, 1.0 - self.alpha)
        return loss if self.reduction == "none" else getattr(loss, self.reduction)()


class _FocalLoss(torch.autograd.Function):
    """The gradient is computed with the loss, so that p and softplus are computed once and then forgotten."""

    @staticmethod
    def forward(ctx, logits, classes, *weights):
        total, ctx.gradient = _loss_and_gradient(logits, classes, *weights)
        ctx.save_for_backward(logits, classes)
        ctx.weights = weights
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        # Scaled in place and given away: a second tensor of this size would cost more than all the arithmetic. Only a
        # second backward through a retained graph has to compute it again.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            gradient = _loss_and_gradient(*ctx.saved_tensors, *ctx.weights)[1]
        return gradient.mul_(grad_output), None, None, None, None


def _loss_and_gradient(logits, classes, gamma, positive_weight, negative_weight) -> tuple[Tensor, Tensor]:
    """The loss (scalar) and its derivative by the logits."""
    flat, classes = logits.detach().reshape(-1, logits.shape[-1]), classes.reshape(-1)
    gradient = torch.empty_like(flat)
    loss = torch.zeros((), dtype=_accumulator(flat), device=flat.device)
    weights = (classes != IGNORED).to(loss.dtype) * negative_weight
    rows = max(1, (CPU_CHUNK if flat.device.type == "cpu" else GPU_CHUNK) // flat.shape[1])
    for x, weight, out in zip(flat.split(rows), weights.split(rows), gradient.split(rows), strict=True):
        loss += _all_as_background(x, weight, out, gamma)
    loss += _correct_positives(flat, classes, gradient, gamma, positive_weight, negative_weight)
    return loss, gradient.view(logits.shape)


def _all_as_background(x: Tensor, weight: Tensor, out: Tensor, gamma: float) -> Tensor:
    """Loss of logits x (R, K), weighted by row (R,), if all were background; its derivative goes into `out`."""
    x = x.to(weight.dtype)
    p = torch.sigmoid(x)
    modulation = _power(p, gamma).mul_(weight[:, None])
    # softplus(x) = max(x, 0) - log(1 - min(p, 1 - p)), as exact as F.softplus, whose AVX-512 kernel (torch 2.15) was
    # seen to take ten times as long in some processes
    smaller = torch.minimum(1 - p, p)
    loss = x.clamp(min=0).sub_(smaller.neg_().log1p_()).mul_(modulation)
    total = loss.sum()
    derivative = torch.mul(modulation, p, out=out) if out.dtype == x.dtype else modulation * p
    derivative.add_(loss.addcmul_(loss, p, value=-1), alpha=gamma)  # gamma (1 - p) loss
    if derivative is not out:
        out.copy_(derivative)
    return total


def _correct_positives(logits, classes, gradient, gamma, positive_weight, negative_weight) -> Tensor:
    """For the one positive pair of each positive anchor: what it adds to the loss, and its derivative in `gradient`.

    On a CPU for those pairs alone; elsewhere looking them up is a sync point, and a pair of every anchor costs little.
    """
    positive = classes > BACKGROUND
    pairs = torch.arange(len(classes), device=classes.device) * logits.shape[1] + classes.clamp(min=0)
    if pairs.device.type == "cpu":
        pairs, positive = pairs[positive], positive[positive]
    x = logits.reshape(-1)[pairs].to(_accumulator(logits))
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    own = positive_weight * _power(q, gamma) * _softplus(-x)
    taken_back = negative_weight * _power(p, gamma) * _softplus(x)
    derivative = -positive_weight * _power(q, gamma) * (gamma * p * _softplus(-x) + q)
    flat = gradient.view(-1)
    flat[pairs] = torch.where(positive, derivative.to(flat.dtype), flat[pairs])
    return torch.where(positive, own - taken_back, 0).sum()


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), exact in float32 and float64: beyond 40 the rest is below float64's rounding."""
    return F.softplus(x, threshold=40)


def _power(p: Tensor, gamma: float) -> Tensor:
    """p^gamma as a new tensor."""
    return p * p if gamma == 2 else p.pow(gamma)


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
