"""A classification loss from a plain differentiable function: torch derives the gradient.

    def focal(logits, targets):                       # (R', K) each
        p = logits.sigmoid()
        p_t = torch.where(targets == 1, p, 1 - p)
        return (1 - p_t) ** 2 * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")

    loss = DifferentiableLoss(focal)

This is the short way to a new loss. It needs a few times the memory and time of `one_pass`, because autograd keeps
tensors of the size of the logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detector.losses.assigners.assignment import IGNORED
from detector.losses.classification.base import ClassificationLoss

PairLoss = Callable[[Tensor, Tensor], Tensor]  # logits (R', K), targets (R', K) → loss of each pair (R', K)


class DifferentiableLoss(ClassificationLoss):
    """The sum of `function` over all anchors that are not ignored.

    function(logits, targets) → the loss of each (anchor, class) pair. All three are (R', K), float64 for float64
    logits, else float32. targets: 1 at the class of a positive anchor, 0 elsewhere. It sees R' anchors of any images.
    The loss of an anchor must not depend on the others.
    needs_quality: the target of a positive is its quality instead of 1; see `ClassificationLoss.terms`.
    takes_alpha_by_class: whether `function` was built with such weights; see `ClassificationLoss`.
    """

    def __init__(self, function: PairLoss, *, needs_quality: bool = False, takes_alpha_by_class: bool = True):
        super().__init__()
        self.function = function
        self.needs_quality = needs_quality
        self.takes_alpha_by_class = self.has_alpha = takes_alpha_by_class

    def summed(self, logits: Tensor, classes: Tensor, quality: Tensor | None) -> tuple[Tensor, None]:
        return self._pairs(_at_least_float32(logits), classes, quality).sum(), None

    def terms(self, logits: Tensor, classes: Tensor, quality: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            logits = _at_least_float32(logits).detach().requires_grad_()
            loss = self._pairs(logits, classes, quality)
            (gradient,) = torch.autograd.grad(loss.sum(), logits)
        return loss.detach().sum(0), gradient

    def _pairs(self, logits: Tensor, classes: Tensor, quality: Tensor | None) -> Tensor:
        """The loss of each pair (R', K), without ignored anchors."""
        counted = classes != IGNORED
        logits, classes = logits[counted], classes[counted]  # CPU-GPU sync point
        targets = torch.zeros_like(logits)
        positive = (classes >= 0).nonzero(as_tuple=True)[0]
        own = targets.new_ones(len(positive)) if quality is None or not self.needs_quality else quality.to(targets)
        targets[positive, classes[positive]] = own
        loss = self.function(logits, targets)
        if loss.shape != logits.shape:
            raise ValueError(f"the loss of each pair must have shape {tuple(logits.shape)}, not {tuple(loss.shape)}")
        return loss


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
