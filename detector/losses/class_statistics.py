"""How each class fares in the classification loss, over an epoch: who is learnt, and who is pushed down.

A class with few objects gets its positive gradient from few anchors and its negative gradient from all the others:
the background and every object of another class. The ratio of the two is what the methods against class imbalance
steer by (Equalization Loss v2, arXiv 2012.08548, section 3.2; Equalized Focal Loss, arXiv 2201.02593, section 3.2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from detector.losses.assigners.assignment import BACKGROUND, IGNORED
from detector.losses.classification.one_pass import ClassificationLoss
from detector.utils.dist import sum_across_processes

FIGURES = ("positives", "loss_share", "gradient_ratio", "score_positive", "score_background")
CHUNK = 1 << 22  # elements looked at at a time: temporaries of 16 MB, not of the logits' size

OF_POSITIVES = ("positives", "positive_gradient", "positive_score")
OF_ALL = ("loss", "negative_gradient", "background_score", "background")


def sample_every(batches: int) -> int:
    """In every how many batches all anchors are looked at, in an epoch of so many: ten times an epoch, but not oftener
    than every 20th where that is more than enough (it costs about as much as the loss again)."""
    return max(1, min(20, batches // 10))


class ClassStatistics(nn.Module):
    """Sums for each of K classes over the batches since `reset`, and what they say.

    The positives are looked at in every batch, since a rare class has so few of them; that costs next to nothing. All
    anchors are looked at only in some batches, which is enough: each of them shows every class thousands of negatives.

    All sums are buffers, so that a checkpoint that holds them goes on in mid-epoch as if it had never stopped; they are
    sums over all processes, on each of them. Every process must make the same calls.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.register_buffer("positives", torch.zeros(num_classes, dtype=torch.int64))  # anchors
        for name in (*OF_POSITIVES[1:], *OF_ALL):
            self.register_buffer(name, torch.zeros(num_classes))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("sampled_batches", torch.zeros((), dtype=torch.int64))

    def reset(self) -> None:
        """To be called when an epoch begins (not when it goes on after a stop)."""
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
        """Add a batch as `loss` sees it: its positives, and with `everything` all its anchors.

        logits (N, R, K), classes (N, R), quality (P,) or None: what the loss is computed of. positives: where classes
        are >= 0, `(classes >= 0).nonzero(as_tuple=True)`. To be called before the loss learns from the batch.
        """
        own, labels = logits[positives], classes[positives]
        self.add_positives(own, labels, loss.terms(own, labels, quality)[1])  # a row's gradient is its own affair
        if everything:
            self.add_all(logits, classes, *loss.terms(logits, classes, quality))

    @torch.no_grad()
    def add_positives(self, logits: Tensor, labels: Tensor, gradient: Tensor) -> None:
        """The positive anchors of a batch; to be called for every batch, also where there are none.

        logits, gradient (of the summed loss by the logits): (P, K) float. labels: (P,) int64 in 0..K-1.
        """
        own = labels[:, None]
        score = logits.gather(1, own).squeeze(1).float().sigmoid()
        pull = gradient.gather(1, own).squeeze(1).float().abs()
        self._add(OF_POSITIVES, [self._by_class(labels, values) for values in (torch.ones_like(score), pull, score)])
        self.batches += 1

    @torch.no_grad()
    def add_all(self, logits: Tensor, classes: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """All anchors of a batch; to be called for some batches, the first of an epoch at least.

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
        self._add(OF_ALL, [loss.float(), push, score, background])
        self.sampled_batches += 1

    def summary(self, class_names: list[str]) -> dict:
        """{"batches", "sampled_batches": in how many of them all anchors were looked at, "per_class": {name: figures}}.

        Figures, for JSON (None where there was nothing to divide by):
        positives: int, positive anchors of all batches.
        loss_share: of the classification loss, what the class's own column of logits accounts for.
        gradient_ratio: sum of |gradient| on its positives / the same on the background and other classes' anchors, a
            batch. In balance it is about 1; below, the class is being pushed down.
        score_positive: mean score of the class on its own positives.
        score_background: mean score of the class on background anchors.
        """
        sums = {name: buffer.double().cpu() for name, buffer in self.named_buffers()}
        seen = sums["positives"] > 0
        push_of_all = sums["negative_gradient"] * sums["batches"] / sums["sampled_batches"]
        columns = {
            "positives": self.positives.cpu(),
            "loss_share": sums["loss"] / sums["loss"].sum(),
            "gradient_ratio": torch.where(seen, sums["positive_gradient"] / push_of_all, math.nan),
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
