"""Weights of positives by class, from how many boxes each class has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.losses.classification.focal import ALPHA

MAX_ALPHA = 0.99  # a class with one box among thousands would otherwise weigh hundreds of times the others


def resolve_alpha(
    alpha: float | list[float] | str | None, beta: float, class_counts: np.ndarray | None
) -> float | list[float] | None:
    """`loss.alpha` as numbers: `inverse_frequency` and `effective_number` (with beta) from the boxes of each class."""
    if not isinstance(alpha, str):
        return alpha
    assert class_counts is not None
    of_class = inverse_frequency(class_counts) if alpha == "inverse_frequency" else effective_number(class_counts, beta)
    return of_class.tolist()


def alpha_table(loss, class_counts: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """What weighs the positives of each class with a LossConfig, as lines: class, boxes, alpha, the most frequent
    first; no line where all classes have the same.
    """
    alphas = resolve_alpha(loss.alpha, loss.effective_beta, class_counts)
    if not isinstance(alphas, list):
        return []
    width = max(len("class"), *map(len, class_names))
    order = np.argsort(-class_counts, kind="stable")
    mean = np.dot(alphas, class_counts) / max(class_counts.sum(), 1)
    return [
        f"weight of positives by class ({mean:.3f} a box; of negatives {1 - ALPHA}):",
        f"  {'class':{width}s} {'boxes':>8s} {'alpha':>6s}",
        *(f"  {class_names[k]:{width}s} {class_counts[k]:8d} {alphas[k]:6.3f}" for k in order),
    ]


def inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """(K,) float64 alphas, proportional to 1 / boxes; see `_with_mean`. counts: (K,) int64."""
    return _with_mean(1 / np.maximum(counts, 1), counts)


def effective_number(counts: np.ndarray, beta: float) -> np.ndarray:
    """(K,) float64 alphas, proportional to (1 - beta) / (1 - beta^boxes); see `_with_mean`. counts: (K,) int64.

    Cui et al., Class-Balanced Loss Based on Effective Number of Samples, arXiv 1901.05555, eq. 2: beta 0 is no
    weighting, towards 1 it is the inverse frequency.
    """
    return _with_mean((1 - beta) / (1 - beta ** np.maximum(counts, 1)), counts)


def _with_mean(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The weights scaled so that their mean over all boxes is ALPHA: of the positives' loss, no more and no less.

    What would pass MAX_ALPHA stops there, and the others are scaled again, so that the mean stays. Classes without
    boxes have no say in it.
    """
    counts = counts if counts.any() else np.ones_like(counts)
    capped = np.zeros(len(counts), dtype=bool)
    while True:
        left = ALPHA * counts.sum() - MAX_ALPHA * counts[capped].sum()
        alphas = np.where(capped, MAX_ALPHA, weights * left / (weights * counts)[~capped].sum())
        if not (alphas > MAX_ALPHA).any():
            return alphas
        capped |= alphas > MAX_ALPHA
