"""What every classification loss offers to the criterion and to the statistics of each class."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class ClassificationLoss(nn.Module, ABC):
    """A loss of logits (N, R, K), summed over anchors and classes, given the class of each anchor.

    A subclass computes the loss (`summed`, `terms`). If it changes during the training, it keeps its state in buffers,
    updates it in `observe` and may report it in `figures`. `OnePassLoss` and `DifferentiableLoss` do most of this.
    """

    needs_quality: bool = False  # is the target of a positive its quality, such as the IoU of its predicted box?
    takes_alpha_by_class: bool = True  # if not, weights by class in loss.alpha are an error
    has_alpha: bool = True  # if not, weights by class count relative to that of auto, and one weight for all is nothing
    balances_classes: bool = False  # does it weigh the classes against each other by itself?
    least_gamma: float | None = None  # to which its gamma, and alpha with it, may move in the training; None: it stays

    def forward(self, logits: Tensor, classes: Tensor, quality: Tensor | None = None) -> Tensor:
        """The sum, a scalar: float64 for float64 logits, else float32. Arguments: see `terms`.

        In training mode, and unless gradients are off, the state is updated too.
        """
        total, gradient_sums = self.summed(logits, classes, quality)
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.observe(logits.detach(), classes, gradient_sums)
        return total

    @abstractmethod
    def summed(self, logits: Tensor, classes: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The sum that `forward` returns, and what `observe` gets as `gradient_sums`. Arguments: see `terms`."""

    @abstractmethod
    def terms(self, logits: Tensor, classes: Tensor, quality: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The loss by class (K,), and the gradient of its sum by the logits, of their shape, never float16. Does not
        change the state.

        logits: (N, R, K) float. classes: (N, R) int64, each anchor's class 0..K-1, or BACKGROUND (-1), or IGNORED (-2:
        no loss, no gradient). quality, only for a loss that `needs_quality`: (P,) float in 0..1, the target of each
        positive anchor in the order of `(classes >= 0).nonzero()`: the assigner's score if it gives any, else the IoU
        of predicted box and object.
        An anchor's gradient depends on that anchor alone: of a part of the anchors, it is the same.
        """

    def observe(self, logits: Tensor, classes: Tensor, gradient_sums: Tensor | None) -> None:
        """Updates the state after the loss of a batch. Every process calls it, so it may sum over processes."""

    def figures(self) -> dict[str, float]:
        """Figures of the state for the log of a training step, by name."""
        return {}
