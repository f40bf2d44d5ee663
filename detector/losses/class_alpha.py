"""Weights of positives by class (`loss.alpha`), from the number of boxes of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.config.schema import LossConfig
from detector.losses.classification.focal import ALPHA

MAX_ALPHA = 0.99  # a class with one box among thousands would otherwise weigh hundreds of times the others


def resolve_alpha(
    alpha: float | list[float] | str | None, beta: float, class_counts: np.ndarray
) -> float | list[float] | None:
    """`loss.alpha` as numbers: inverse_frequency and effective_number become one weight per class.

    beta: of effective_number. class_counts: (K,) int, boxes of each class.
    """
    if not isinstance(alpha, str):
        return alpha
    by_class = inverse_frequency(class_counts) if alpha == "inverse_frequency" else effective_number(class_counts, beta)
    return by_class.tolist()


def alpha_table(loss: LossConfig, class_counts: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """The weight of each class's positives as lines of a table (class, boxes, alpha), the most frequent class first.

    No lines if all classes have the same weight. class_counts: (K,) int, boxes of each class.
    """
    alphas = resolve_alpha(loss.alpha, loss.effective_beta, class_counts)
    if not isinstance(alphas, list):
        return []
    width = max(len("class"), *map(len, class_names))
    order = np.argsort(-class_counts, kind="stable")
    mean = np.dot(alphas, class_counts) / max(class_counts.sum(), 1)
    return [
        f"weight of positives by class (mean over boxes {mean:.3f}; negatives weigh {1 - ALPHA}):",
        f"  {'class':{width}s} {'boxes':>8s} {'alpha':>6s}",
        *(f"  {class_names[k]:{width}s} {class_counts[k]:8d} {alphas[k]:6.3f}" for k in order),
    ]


def inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """(K,) float64 alphas, proportional to 1 / boxes, with a mean of ALPHA over boxes. counts: (K,) int64."""
    return _with_mean_alpha(1 / np.maximum(counts, 1), counts)


def effective_number(counts: np.ndarray, beta: float) -> np.ndarray:
    """(K,) float64 alphas, proportional to (1 - beta) / (1 - beta^boxes), with a mean of ALPHA over boxes.

    counts: (K,) int64. beta 0 weighs all classes alike, towards 1 it becomes the inverse frequency. Cui et al.,
    Class-Balanced Loss Based on Effective Number of Samples, arXiv 1901.05555, eq. 2.
    """
    return _with_mean_alpha((1 - beta) / (1 - beta ** np.maximum(counts, 1)), counts)


def _with_mean_alpha(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(K,) weights scaled to a mean of ALPHA over all boxes, so that the positives' loss as a whole weighs the same.

    A weight that would exceed MAX_ALPHA is set to it, and the others are scaled again to keep the mean. Classes without
    boxes do not count in the mean.
    """
    counts = counts if counts.any() else np.ones_like(counts)
    capped = np.zeros(len(counts), dtype=bool)
    while True:
        left = ALPHA * counts.sum() - MAX_ALPHA * counts[capped].sum()
        alphas = np.where(capped, MAX_ALPHA, weights * left / (weights * counts)[~capped].sum())
        if not (alphas > MAX_ALPHA).any():
            return alphas
        capped |= alphas > MAX_ALPHA
