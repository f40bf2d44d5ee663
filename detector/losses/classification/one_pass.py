"""Classification losses with a derivative made by hand: loss and gradient in one pass over all anchors.

Almost every (anchor, class) pair is background. There all these losses are the focal loss's negative term

    L(x) = weight p^gamma softplus(x)         dL/dx = weight p^gamma (p + gamma (1 - p) softplus(x)),    p = sigmoid(x)

with one gamma and one weight, or one for each class. So the pass treats all pairs as background, a cache-sized chunk at
a time. Then it corrects the one pair of each positive anchor. It builds no one-hot targets (N, R, K), and autograd
keeps a single tensor, the gradient. Nothing underflows: log p and log(1 - p) come from softplus, never from the
logarithm of a rounded p.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detector.losses.assigners.assignment import BACKGROUND, IGNORED
from detector.losses.classification.base import ClassificationLoss

CPU_CHUNK = 1 << 18  # elements: the temporaries of a chunk stay in the cores' L2 caches
GPU_CHUNK = 1 << 24  # few large kernels, and still a bounded amount of memory
LOOK_UP = ("cpu",)  # kinds of device on which looking up the positives is not a sync point
LOG2_E = 1 / math.log(2)
LEAST_EXPONENT = -80  # 1e-24: arithmetic with float32's denormals is many times slower

# One number for all classes (a float, or a tensor (), which is read without a sync), or a tensor (K,), one per class.
Factor = float | Tensor

# For P positive pairs: logits (P,), classes (P,) int64, quality (P,) or None → loss (P,) and its derivative (P,).
# It is also called for pairs that are not positive; the result is then thrown away.
PositiveTerm = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Formula:
    """A loss as a pure function of logits and targets; the state of the loss, if any, is fixed in it."""

    gamma: Factor  # of the background
    weight: Factor  # of the background
    positive: PositiveTerm
    gradient_sums: bool = False  # compute the sums of the gradient too?


class Terms(NamedTuple):
    """What one pass over all anchors gives."""

    loss: Tensor  # (K,), float64 for float64 logits, else float32
    gradient: Tensor  # of the summed loss by the logits, of their shape and dtype, but float32 for float16
    gradient_sums: Tensor | None  # (2, K), dtype of the loss: |gradient| over the positives, over the negatives


class OnePassLoss(ClassificationLoss):
    """A classification loss that is the focal loss's negative term on the background; a subclass gives its formula."""

    @abstractmethod
    def formula(self) -> Formula:
        """The loss in its present state."""

    def summed(self, logits: Tensor, classes: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return SummedLoss.apply(logits, classes, quality, self.formula())

    @torch.no_grad()
    def terms(self, logits: Tensor, classes: Tensor, quality: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return compute(self.formula(), logits, classes, quality)[:2]


class SummedLoss(torch.autograd.Function):
    """Computes the gradient together with the loss, so that p and softplus are computed once and not kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, classes: Tensor, quality: Tensor | None, formula: Formula) -> Any:
        loss, ctx.gradient, gradient_sums = compute(formula, logits, classes, quality)
        ctx.save_for_backward(logits, classes, quality)
        ctx.formula, ctx.dtype = formula, logits.dtype
        if gradient_sums is not None:
            ctx.mark_non_differentiable(gradient_sums)
        return loss.sum(), gradient_sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, _: Tensor | None) -> Any:
        # Scaled in place and given away: a second tensor of this size would cost more than all the arithmetic. Only a
        # second backward through a retained graph computes the gradient again.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            gradient = compute(ctx.formula, *ctx.saved_tensors).gradient
        return gradient.mul_(grad_output).to(ctx.dtype), None, None, None


def compute(formula: Formula, logits: Tensor, classes: Tensor, quality: Tensor | None) -> Terms:
    """logits: (..., K). classes: (...). quality: (P,) or None. Raises ValueError if the shapes do not fit."""
    if logits.shape[:-1] != classes.shape:
        raise ValueError(f"classes {tuple(classes.shape)} must have the shape of logits {tuple(logits.shape)} less K")
    flat, classes = logits.detach().reshape(-1, logits.shape[-1]), classes.reshape(-1)
    dtype = torch.float64 if flat.dtype == torch.float64 else torch.float32
    gamma, weight = _both_of_one_kind(formula, flat.shape[1], dtype, flat.device)
    # in float16 the gradient of easy background would be 0 before the loss scale, in grad_output, could save it
    gradient = torch.empty_like(flat, dtype=dtype if flat.dtype == torch.float16 else flat.dtype)
    sums = torch.zeros(3 if formula.gradient_sums else 1, flat.shape[1], dtype=dtype, device=flat.device)
    counted = (classes != IGNORED).to(dtype)
    rows = max(1, (CPU_CHUNK if flat.device.type == "cpu" else GPU_CHUNK) // flat.shape[1])
    for x, mask, out in zip(flat.split(rows), counted.split(rows), gradient.split(rows), strict=True):
        _all_as_background(x, mask, out, gamma, weight, sums)
    _correct_positives(flat, classes, quality, gradient, gamma, weight, formula.positive, sums)
    return Terms(sums[0], gradient.view(logits.shape), sums[1:] if formula.gradient_sums else None)


def _both_of_one_kind(
    formula: Formula, num_classes: int, dtype: torch.dtype, device: torch.device
) -> tuple[Factor, Factor]:
    """gamma and weight of the background: both floats, or both tensors (K,)."""

    def by_class(value: Factor) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(dtype).expand(num_classes).contiguous()
        return torch.full((num_classes,), value, dtype=dtype, device=device)

    if isinstance(formula.gamma, Tensor) or isinstance(formula.weight, Tensor):
        return by_class(formula.gamma), by_class(formula.weight)
    return formula.gamma, formula.weight


def _all_as_background(x: Tensor, mask: Tensor, out: Tensor, gamma: Factor, weight: Factor, sums: Tensor) -> None:
    """Take all logits x (R, K) for background: add the loss to `sums`, write its derivative into `out` (R, K).

    mask: (R,), 1 for the rows that count and 0 for ignored ones.
    """
    x = x.to(mask.dtype)
    p = torch.sigmoid(x)
    # softplus(x) = max(x, 0) - log(1 - min(p, 1 - p)): as exact as F.softplus, whose AVX-512 kernel (torch 2.15) took
    # ten times as long in some processes
    smaller = torch.minimum(1 - p, p)
    loss = x.clamp(min=0).sub_(smaller.neg_().log1p_())
    if isinstance(gamma, Tensor):
        assert isinstance(weight, Tensor)
        # weight p^gamma as 2^(log2(weight) + gamma log2(p)), with log(p) = x - softplus(x): a fourth of pow's time
        exponent = torch.addcmul(weight.log2(), x - loss, gamma * LOG2_E)
        modulation = exponent.clamp_(min=LEAST_EXPONENT).exp2_().mul_(mask[:, None])
    else:
        modulation = power(p, gamma).mul_((mask * weight)[:, None])
    loss.mul_(modulation)
    sums[0] += loss.sum(0)
    derivative = torch.mul(modulation, p, out=out) if out.dtype == x.dtype else modulation * p
    loss.addcmul_(loss, p, value=-1)
    if isinstance(gamma, Tensor):
        derivative.addcmul_(loss, gamma)
    else:
        derivative.add_(loss, alpha=gamma)
    if len(sums) == 3:
        sums[2] += derivative.sum(0)  # the derivative is nowhere negative
    if derivative is not out:
        out.copy_(derivative)


def _correct_positives(
    logits: Tensor,
    classes: Tensor,
    quality: Tensor | None,
    gradient: Tensor,
    gamma: Factor,
    weight: Factor,
    term: PositiveTerm,
    sums: Tensor,
) -> None:
    """Replace the background term of the one positive pair of each positive anchor by `term`, in `sums` and `gradient`.

    logits and gradient: (R, K). classes: (R,).
    """
    pairs, own, positive = positive_pairs(classes, logits.shape[1])
    if quality is not None and len(positive) != len(quality):  # pairs of all anchors: a positive gets its own quality
        quality = F.pad(quality, (0, 1))[(positive.cumsum(0) - 1) % (len(quality) + 1)]
    x = logits.reshape(-1)[pairs].to(sums.dtype)
    loss, derivative = term(x, own, None if quality is None else quality.to(sums.dtype))
    old_loss, old_derivative = background_term(x, for_classes(gamma, own), for_classes(weight, own))
    flat = gradient.view(-1)
    flat[pairs] = torch.where(positive, derivative.to(flat.dtype), flat[pairs])
    changes = [loss - old_loss] + ([derivative.abs(), -old_derivative] if len(sums) == 3 else [])
    for row, change in zip(sums, changes, strict=True):
        row.index_add_(0, own, torch.where(positive, change, 0))


def positive_pairs(classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """The (anchor, class) pairs of positive anchors: their indices in the flat logits (R * K,), their classes, and a
    mask of those that are positive. classes: (R,) of all anchors.

    On a CPU these are the positive pairs alone. Elsewhere that would be a sync point, and a pair of each anchor is
    cheap: there the mask says which count.
    """
    positive = classes > BACKGROUND
    anchors = torch.arange(len(classes), device=classes.device)
    if classes.device.type in LOOK_UP:
        anchors = anchors[positive]
        own, positive = classes[anchors], positive[anchors]
    else:
        # spread the others over the classes: index_add_ into one class would make them wait for each other
        own = torch.where(positive, classes, anchors % num_classes)
    return anchors * num_classes + own, own, positive


def background_term(x: Tensor, gamma: Factor, weight: Factor) -> tuple[Tensor, Tensor]:
    """Loss and derivative of pairs with logits x that are background; gamma and weight broadcast to x."""
    p = torch.sigmoid(x)
    modulation = weight * power(p, gamma)
    return modulation * softplus(x), modulation * (p + gamma * torch.sigmoid(-x) * softplus(x))


def soft_cross_entropy(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross entropy of logits x and probabilities `target`, and its derivative p - target."""
    error = torch.where(x > 0, (1 - target) - torch.sigmoid(-x), torch.sigmoid(x) - target)
    return target * softplus(-x) + (1 - target) * softplus(x), error


def for_classes(factor: Factor, classes: Tensor) -> Factor:
    """The factor of each of `classes` (P,): (P,) if it differs by class, else as it is."""
    return factor[classes] if isinstance(factor, Tensor) and factor.ndim else factor


def set_factor(module: nn.Module, name: str, value: float | Sequence[float]) -> None:
    """Sets `module.<name>`: a number as a float, one number per class as a float32 buffer (K,).

    The buffer is a setting, not state: checkpoints do not hold it.
    """
    if isinstance(value, (int, float)):
        setattr(module, name, float(value))
    else:
        module.register_buffer(name, torch.as_tensor(value, dtype=torch.float32), persistent=False)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), exact in float32 and float64: beyond 40 the rest is below float64's rounding."""
    return F.softplus(x, threshold=40)


def power(p: Tensor, gamma: Factor) -> Tensor:
    """p^gamma as a new tensor."""
    return p * p if isinstance(gamma, (int, float)) and gamma == 2 else p.pow(gamma)
