"""What all sigmoid classification losses from integer targets share: the pass over all anchors, and its gradient.

Almost every (anchor, class) pair is background, and there all these losses are the focal loss's negative term

    L(x) = weight p^gamma softplus(x)         dL/dx = weight p^gamma (p + gamma (1 - p) softplus(x)),    p = sigmoid(x)

with a gamma and a weight for all classes or for each. So it and its gradient are computed for all pairs, a cache-sized
chunk at a time, and then corrected at the one pair of each positive anchor, by what the loss makes of positives. No
(N, R, K) one-hot is built, autograd keeps a single tensor (the gradient itself), and nothing underflows: log p and
log(1 - p) come from softplus, never from the logarithm of a rounded p.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detector.losses.assigners.assignment import BACKGROUND, IGNORED

CPU_CHUNK = 1 << 18  # elements: the temporaries of a chunk stay in the cores' L2 caches
GPU_CHUNK = 1 << 24  # few large kernels, and still a bounded amount of memory
LOOK_UP = ("cpu",)  # kinds of device on which looking up the positives is not a sync point
LOG2_E = 1 / math.log(2)
LEAST_EXPONENT = -80  # 1e-24: arithmetic with what float32 holds only as denormals is many times slower

Factor = float | Tensor  # one number (a float, or (), so that reading it is no sync point), or (K,), one a class

# Of P positive pairs: logits (P,), classes (P,) int64, quality (P,) or None → loss (P,) and its derivative (P,).
# Also called for pairs that are not positive, whose values are then thrown away.
PositiveTerm = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Formula:
    """A loss as a pure function of logits and targets, with whatever state it has fixed to what it was."""

    gamma: Factor  # of the background
    weight: Factor  # of the background
    positive: PositiveTerm
    gradient_sums: bool = False  # are the sums of the gradient wanted too?


class Terms(NamedTuple):
    loss: Tensor  # (K,), float64 for float64 logits, else float32
    gradient: Tensor  # of the summed loss by the logits, like them
    gradient_sums: Tensor | None  # (2, K), dtype of the loss: |gradient| over the positives, over the negatives


class ClassificationLoss(nn.Module):
    """A loss of logits (N, R, K), summed over all anchors and classes, from integer targets.

    A subclass says what the loss is now (`formula`) and, if that depends on the training, what it learns from a step
    (`observe`), which it keeps in buffers.
    """

    needs_quality = False

    def formula(self) -> Formula:
        raise NotImplementedError

    def observe(self, logits: Tensor, classes: Tensor, gradient_sums: Tensor | None) -> None:
        """After each step's loss was computed: every process calls it, so it may sum over them."""

    def figures(self) -> dict[str, float]:
        """What of the state is to be seen in the record of a training step."""
        return {}

    @torch.no_grad()
    def terms(self, logits: Tensor, classes: Tensor, quality: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The loss by class (K,), and the gradient of its sum by the logits, like them but not in float16. Leaves no
        trace in the state.

        logits: (N, R, K) float. classes: (N, R) int64, each anchor's class 0..K-1, or BACKGROUND (-1), or IGNORED (-2:
        no loss, no gradient). quality, only for a loss that `needs_quality`: (P,) float in 0..1, for the positives in
        the order of `(classes >= 0).nonzero()`, the IoU of the predicted box and the object's.
        """
        return compute(self.formula(), logits, classes, quality)[:2]

    def forward(self, logits: Tensor, classes: Tensor, quality: Tensor | None = None) -> Tensor:
        """The sum, a scalar: float64 for float64 logits, else float32. Arguments: see `terms`.

        In training mode, the state learns from it, unless nothing will be learnt from the loss (torch.no_grad).
        """
        total, gradient_sums = SummedLoss.apply(logits, classes, quality, self.formula())
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.observe(logits.detach(), classes, gradient_sums)
        return total


class SummedLoss(torch.autograd.Function):
    """The gradient is computed with the loss, so that p and softplus are computed once and then forgotten."""

    @staticmethod
    def forward(ctx, logits, classes, quality, formula):
        loss, ctx.gradient, gradient_sums = compute(formula, logits, classes, quality)
        ctx.save_for_backward(logits, classes, quality)
        ctx.formula, ctx.dtype = formula, logits.dtype
        if gradient_sums is not None:
            ctx.mark_non_differentiable(gradient_sums)
        return loss.sum(), gradient_sums

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output, _):
        # Scaled in place and given away: a second tensor of this size would cost more than all the arithmetic. Only a
        # second backward through a retained graph has to compute it again.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            gradient = compute(ctx.formula, *ctx.saved_tensors).gradient
        return gradient.mul_(grad_output).to(ctx.dtype), None, None, None


def compute(formula: Formula, logits: Tensor, classes: Tensor, quality: Tensor | None) -> Terms:
    """logits: (..., K). classes: (...). quality: (P,) or None."""
    if logits.shape[:-1] != classes.shape:
        raise ValueError(f"classes {tuple(classes.shape)} must have the shape of logits {tuple(logits.shape)} less K")
    flat, classes = logits.detach().reshape(-1, logits.shape[-1]), classes.reshape(-1)
    dtype = torch.float64 if flat.dtype == torch.float64 else torch.float32
    gamma, weight = _ready(formula, flat.shape[1], dtype, flat.device)
    # in float16 the gradient of easy background would be 0 before the loss scale, in grad_output, could save it
    gradient = torch.empty_like(flat, dtype=dtype if flat.dtype == torch.float16 else flat.dtype)
    sums = torch.zeros(3 if formula.gradient_sums else 1, flat.shape[1], dtype=dtype, device=flat.device)
    counted = (classes != IGNORED).to(dtype)
    rows = max(1, (CPU_CHUNK if flat.device.type == "cpu" else GPU_CHUNK) // flat.shape[1])
    for x, mask, out in zip(flat.split(rows), counted.split(rows), gradient.split(rows), strict=True):
        _all_as_background(x, mask, out, gamma, weight, sums)
    _correct_positives(flat, classes, quality, gradient, gamma, weight, formula.positive, sums)
    return Terms(sums[0], gradient.view(logits.shape), sums[1:] if formula.gradient_sums else None)


def _ready(formula: Formula, num_classes: int, dtype: torch.dtype, device: torch.device) -> tuple[Factor, Factor]:
    """gamma and weight of the background: two floats, or two tensors (K,) of that kind."""
    pair = (formula.gamma, formula.weight)
    if not any(isinstance(value, Tensor) for value in pair):
        return pair
    return tuple(
        value.to(dtype).expand(num_classes).contiguous()
        if isinstance(value, Tensor)
        else torch.full((num_classes,), value, dtype=dtype, device=device)
        for value in pair
    )


def _all_as_background(x: Tensor, mask: Tensor, out: Tensor, gamma: Factor, weight: Factor, sums: Tensor) -> None:
    """Add to `sums` what the logits x (R, K) give if all are background; the derivative of the loss goes into `out`.

    mask: (R,), 1 for the rows that count and 0 for those that do not.
    """
    x = x.to(mask.dtype)
    p = torch.sigmoid(x)
    # softplus(x) = max(x, 0) - log(1 - min(p, 1 - p)), as exact as F.softplus, whose AVX-512 kernel (torch 2.15) was
    # seen to take ten times as long in some processes
    smaller = torch.minimum(1 - p, p)
    loss = x.clamp(min=0).sub_(smaller.neg_().log1p_())
    if isinstance(gamma, Tensor):
        # weight p^gamma as 2^(log2(weight) + gamma log2(p)), for log(p) = x - softplus(x): a fourth of pow's time
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
        sums[2] += derivative.sum(0)  # nowhere negative
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
    """For the one positive pair of each positive anchor: what it changes in `sums` and in `gradient`."""
    pairs, own, positive = positive_pairs(classes, logits.shape[1])
    if quality is not None and len(positive) != len(quality):  # all anchors: each positive gets its own, others any
        quality = F.pad(quality, (0, 1))[(positive.cumsum(0) - 1) % (len(quality) + 1)]
    x = logits.reshape(-1)[pairs].to(sums.dtype)
    loss, derivative = term(x, own, None if quality is None else quality.to(sums.dtype))
    taken_back, its_derivative = background_term(x, at(gamma, own), at(weight, own))
    flat = gradient.view(-1)
    flat[pairs] = torch.where(positive, derivative.to(flat.dtype), flat[pairs])
    changes = [loss - taken_back] + ([derivative.abs(), -its_derivative] if len(sums) == 3 else [])
    for row, change in zip(sums, changes, strict=True):
        row.index_add_(0, own, torch.where(positive, change, 0))


def positive_pairs(classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the classes of all anchors (R,): indices of pairs in flat logits, their classes, and which are positive.

    On a CPU the positive pairs alone; elsewhere looking them up is a sync point, and a pair of each anchor is cheap.
    """
    positive = classes > BACKGROUND
    anchors = torch.arange(len(classes), device=classes.device)
    if classes.device.type in LOOK_UP:
        anchors = anchors[positive]
        own, positive = classes[anchors], positive[anchors]
    else:
        # where there is no class, any: zeros added to one and the same would wait for each other
        own = torch.where(positive, classes, anchors % num_classes)
    return anchors * num_classes + own, own, positive


def background_term(x: Tensor, gamma: Factor, weight: Factor) -> tuple[Tensor, Tensor]:
    """Loss and derivative of pairs with logits x that are background; gamma and weight broadcast to x."""
    p = torch.sigmoid(x)
    modulation = weight * power(p, gamma)
    return modulation * softplus(x), modulation * (p + gamma * torch.sigmoid(-x) * softplus(x))


def soft_cross_entropy(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross entropy of logits x and probabilities `target`; and p - target, its derivative."""
    error = torch.where(x > 0, (1 - target) - torch.sigmoid(-x), torch.sigmoid(x) - target)
    return target * softplus(-x) + (1 - target) * softplus(x), error


def at(factor: Factor, classes: Tensor) -> Factor:
    """The factor of each of `classes`, where it has one a class."""
    return factor[classes] if isinstance(factor, Tensor) and factor.ndim else factor


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), exact in float32 and float64: beyond 40 the rest is below float64's rounding."""
    return F.softplus(x, threshold=40)


def power(p: Tensor, gamma: Factor) -> Tensor:
    """p^gamma as a new tensor."""
    return p * p if isinstance(gamma, (int, float)) and gamma == 2 else p.pow(gamma)
