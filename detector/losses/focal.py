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

CPU_CHUNK = 1 << 16  # elements: the temporaries of a chunk stay in the cores' L2 caches
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
    def forward(ctx, logits, classes, gamma, positive_weight, negative_weight):
        num_classes = logits.shape[-1]
        flat, flat_classes = logits.detach().reshape(-1, num_classes), classes.reshape(-1)
        gradient = torch.empty_like(flat)
        total = torch.zeros((), dtype=_accumulator(flat), device=flat.device)
        rows = max(1, (CPU_CHUNK if flat.device.type == "cpu" else GPU_CHUNK) // num_classes)
        for x, c, g in zip(flat.split(rows), flat_classes.split(rows), gradient.split(rows), strict=True):
            total += _chunk_loss(x, c, g, gamma, positive_weight, negative_weight)
        ctx.save_for_backward(gradient.view_as(logits))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.to(gradient.dtype), None, None, None, None


def _chunk_loss(x, classes, gradient, gamma, positive_weight, negative_weight) -> Tensor:
    """Loss of some anchors, x (R, K) with classes (R,); its derivative by x is written into `gradient` (R, K)."""
    x = x.to(_accumulator(x))
    derivative = gradient if gradient.dtype == x.dtype else torch.empty_like(x)
    weight = (classes != IGNORED).to(x.dtype) * negative_weight
    p, softplus = torch.sigmoid(x), _softplus(x)
    modulation = _power(p, gamma).mul_(weight[:, None])
    loss = torch.dot(modulation.view(-1), softplus.view(-1))
    torch.addcmul(p, softplus, 1 - p, value=gamma, out=derivative).mul_(modulation)

    # The positive pair of each anchor: take the background term back, put the positive one in. Dense over the
    # anchors (K times fewer than the pairs): looking up which are positive would be a CPU-GPU sync point.
    positive = classes > BACKGROUND
    column = classes.clamp(min=0)[:, None]
    x = x.gather(1, column)[:, 0]
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    difference = positive_weight * _power(q, gamma) * _softplus(-x) - negative_weight * _power(p, gamma) * _softplus(x)
    loss = loss + torch.where(positive, difference, 0).sum()
    positive_derivative = -positive_weight * _power(q, gamma) * (gamma * p * _softplus(-x) + q)
    background = derivative.gather(1, column)[:, 0]
    derivative.scatter_(1, column, torch.where(positive, positive_derivative, background)[:, None])
    if derivative is not gradient:
        gradient.copy_(derivative)
    return loss


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), exact in float32 and float64: beyond 40 the rest is below float64's rounding."""
    return F.softplus(x, threshold=40)


def _power(p: Tensor, gamma: float) -> Tensor:
    """p^gamma as a new tensor."""
    return p * p if gamma == 2 else p.pow(gamma)


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
