"""How the classification loss treats each class over an epoch: which classes are learnt, which are suppressed.

A rare class gets its positive gradient from few anchors, and its negative gradient from all the others: the background
and every object of another class. Methods against class imbalance steer by the ratio of the two (Equalization Loss v2,
arXiv 2012.08548, section 3.2; Equalized Focal Loss, arXiv 2201.02593, section 3.2).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from detector.losses.assigners.assignment import BACKGROUND, IGNORED
from detector.losses.classification.base import ClassificationLoss
from detector.utils.dist import sum_across_processes

FIGURES = ("positives", "loss_share", "gradient_ratio", "score_positive", "score_background")
CHUNK = 1 << 22  # elements at a time: temporaries of 16 MB, not of the size of the logits

SUMS_OVER_POSITIVES = ("positives", "positive_gradient", "positive_score")
SUMS_OVER_ALL = ("loss", "negative_gradient", "background_score", "background")


def sample_every(batches: int) -> int:
    """How often to look at all anchors, in an epoch of so many batches: in every how-many-th batch.

    Ten times an epoch, and in long epochs every 20th batch (looking costs about as much as the loss).
    """
    return max(1, min(20, batches // 10))


class ClassStatistics(nn.Module):
    """Sums for each of K classes over the batches since `reset`, and figures from them.

    Positives are counted in every batch, because a rare class has few of them; that costs next to nothing. All anchors
    are counted in some batches only, which is enough: each batch has thousands of negatives of each class.

    All sums are buffers, so an epoch continues from a checkpoint as if it had never stopped. They are sums over all
    processes, the same on each; every process must make the same calls.
    """

    positives: Tensor
    loss: Tensor
    batches: Tensor
    sampled_batches: Tensor

    def __init__(self, num_classes: int):
        super().__init__()
        self.register_buffer("positives", torch.zeros(num_classes, dtype=torch.int64))  # anchors
        for name in (*SUMS_OVER_POSITIVES[1:], *SUMS_OVER_ALL):
            self.register_buffer(name, torch.zeros(num_classes))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("sampled_batches", torch.zeros((), dtype=torch.int64))

    def reset(self) -> None:
        """Sets all sums to 0. Call it when an epoch begins, not when it resumes."""
        for buffer in self.buffers():
            buffer.zero_()

    @torch.no_grad()
    def observe(
        self,
        loss: ClassificationLoss,
        logits: Tensor,
        classes: Tensor,
        positives: tuple[Tensor, Tensor],
        quality: Tensor | None,
        *,
        everything: bool,
    ) -> None:
        """Add the positives of a batch, or all its anchors if `everything`, as `loss` sees them.

        Call it before `loss` updates its state. logits: (N, R, K). classes: (N, R). quality: (P,) or None. positives:
        `(classes >= 0).nonzero(as_tuple=True)`.
        """
        own, labels = logits[positives], classes[positives]
        gradient = loss.terms(own, labels, quality)[1]  # as among all anchors: it does not depend on the others
        self.add_positives(own, labels, gradient)
        if everything:
            self.add_all(logits, classes, *loss.terms(logits, classes, quality))

    @torch.no_grad()
    def add_positives(self, logits: Tensor, labels: Tensor, gradient: Tensor) -> None:
        """Add the P positive anchors of a batch. Call it for every batch, even if P is 0.

        logits, gradient (of the summed loss by the logits): (P, K) float. labels: (P,) int64 in 0..K-1.
        """
        own = labels[:, None]
        score = logits.gather(1, own).squeeze(1).float().sigmoid()
        pull = gradient.gather(1, own).squeeze(1).float().abs()
        sums = [self._by_class(labels, values) for values in (torch.ones_like(score), pull, score)]
        self._add(SUMS_OVER_POSITIVES, sums)
        self.batches += 1

    @torch.no_grad()
    def add_all(self, logits: Tensor, classes: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Add all anchors of a batch. Call it for some batches, at least the first of an epoch.

        logits, gradient (of the summed loss by the logits): (N, R, K) float. classes: (N, R) int64, 0..K-1, BACKGROUND
        or IGNORED. loss: (K,) float, summed over the anchors.
        """
        classes = classes.reshape(-1)
        rows = max(1, CHUNK // logits.shape[-1])
        parts = zip(*(t.reshape(-1, t.shape[-1]).split(rows) for t in (logits, gradient)), strict=True)
        push, score = torch.zeros_like(self.loss), torch.zeros_like(self.loss)
        for (x, g), own in zip(parts, classes.split(rows), strict=True):
            g = g.abs().float()
            positive = (own >= 0).nonzero(as_tuple=True)[0]  # CPU-GPU sync point
            g[positive, own[positive]] = 0
            push += g.mul_((own != IGNORED)[:, None]).sum(0)
            score += x.float().sigmoid().mul((own == BACKGROUND)[:, None]).sum(0)
        background = (classes == BACKGROUND).sum().float().expand_as(score)
        self._add(SUMS_OVER_ALL, [loss.float(), push, score, background])
        self.sampled_batches += 1

    def summary(self, class_names: list[str]) -> dict[str, Any]:
        """{"batches", "sampled_batches": batches of which all anchors were counted, "per_class": {name: figures}}.

        Figures, for JSON (None where the divisor is 0):
        positives: int, positive anchors of all batches.
        loss_share: the part of the classification loss that stands in the class's column of the logits.
        gradient_ratio: sum of |gradient| on the class's positives / the same on all other anchors, per batch. About 1
            is balance; below, the class is suppressed.
        score_positive: mean score of the class on its own positives.
        score_background: mean score of the class on background anchors.
        """
        sums = {name: buffer.double().cpu() for name, buffer in self.named_buffers()}
        seen = sums["positives"] > 0
        push_in_all_batches = sums["negative_gradient"] * sums["batches"] / sums["sampled_batches"]
        columns = {
            "positives": self.positives.cpu(),
            "loss_share": sums["loss"] / sums["loss"].sum(),
            "gradient_ratio": torch.where(seen, sums["positive_gradient"] / push_in_all_batches, math.nan),
            "score_positive": sums["positive_score"] / sums["positives"],
            "score_background": sums["background_score"] / sums["background"],
        }
        rows = zip(*(columns[name].tolist() for name in FIGURES), strict=True)
        per_class = {
            name: {figure: value if math.isfinite(value) else None for figure, value in zip(FIGURES, row, strict=True)}
            for name, row in zip(class_names, rows, strict=True)
        }
        return {"batches": int(self.batches), "sampled_batches": int(self.sampled_batches), "per_class": per_class}

    def _by_class(self, labels: Tensor, values: Tensor) -> Tensor:
        return torch.zeros_like(self.loss).index_add_(0, labels, values)

    def _add(self, names: tuple[str, ...], values: list[Tensor]) -> None:
        for name, value in zip(names, sum_across_processes(torch.stack(values)), strict=True):
            getattr(self, name).add_(value.to(getattr(self, name).dtype))
