"""Weights of positives by class (`loss.alpha`), from the number of boxes of each class that an epoch shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.config.schema import LossConfig
from detector.losses.classification.focal import ALPHA

MAX_ALPHA = 0.75  # three times ALPHA: a class with one box among thousands would otherwise take most of the loss


def resolve_alpha(
    alpha: float | list[float] | str | None, beta: float, class_counts: np.ndarray
) -> float | list[float] | None:
    """`loss.alpha` as numbers: inverse_frequency and effective_number become one weight per class.

    beta: of effective_number. class_counts: (K,) int, boxes of each class that an epoch shows.
    """
    if not isinstance(alpha, str):
        return alpha
    by_class = inverse_frequency(class_counts) if alpha == "inverse_frequency" else effective_number(class_counts, beta)
    return by_class.tolist()


def alpha_table(loss: LossConfig, class_counts: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """The weight of each class's positives as lines of a table (class, boxes in an epoch, alpha), the most first.

    No table if all classes have the same weight. class_counts: (K,) int, boxes of each class that an epoch shows.
    """
    alphas = resolve_alpha(loss.alpha, loss.effective_beta, class_counts)
    if not isinstance(alphas, list):
        return ["loss.defer_alpha has no effect: loss.alpha is not by class"] if loss.defer_alpha else []
    width = max(len("class"), *map(len, class_names))
    order = np.argsort(-class_counts, kind="stable")
    later = f", from {loss.defer_alpha:.0%} of the training on, {ALPHA} before" if loss.defer_alpha else ""
    return [
        f"weight of positives by class (negatives weigh {1 - ALPHA}){later}:",
        f"  {'class':{width}s} {'an epoch':>8s} {'alpha':>6s}",
        *(f"  {class_names[k]:{width}s} {class_counts[k]:8d} {alphas[k]:6.3f}" for k in order),
    ]


def inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """(K,) float64 alphas, proportional to 1 / boxes, ALPHA to MAX_ALPHA. counts: (K,)."""
    return _from_commonest(1 / np.maximum(counts, 1))


def effective_number(counts: np.ndarray, beta: float) -> np.ndarray:
    """(K,) float64 alphas, proportional to (1 - beta) / (1 - beta^boxes), ALPHA to MAX_ALPHA. counts: (K,).

    beta 0 weighs all classes alike, towards 1 it becomes the inverse frequency. Cui et al., Class-Balanced Loss Based
    on Effective Number of Samples, arXiv 1901.05555, eq. 2.
    """
    return _from_commonest((1 - beta) / (1 - beta ** np.maximum(counts, 1)))


def _from_commonest(weights: np.ndarray) -> np.ndarray:
    """(K,) weights scaled so that the least, the commonest class's, is ALPHA: what rare classes gain, it does not pay.
    None is more than MAX_ALPHA."""
    return np.minimum(ALPHA * weights / weights.min(), MAX_ALPHA)
