"""Weights of positives (`loss.alpha`): from gamma, and by class from the boxes that an epoch shows of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.config.loss import LossConfig
from detector.losses.classification import gamma_of, relative_to_auto
from detector.losses.classification.base import ClassificationLoss
from detector.losses.classification.focal import ALPHA, best_alpha
from detector.utils.errors import InputError
from detector.utils.text import counted

MOST = 3.0  # times the commonest class's weight: a class of one box among thousands would else take most of the loss
SOURCE = "the focal loss paper, table 1b"


def check_one_per_class(loss: LossConfig, num_classes: int, class_names: Sequence[str] | None = None) -> None:
    """Raises InputError for a list of alphas or gammas that is not one value per class; it names `class_names`, if
    given. To be called before the functions below."""
    for name, values in (("alpha", loss.alpha), ("gamma", gamma_of(loss))):
        if isinstance(values, list) and len(values) != num_classes:
            names = "" if class_names is None else f" ({', '.join(class_names)})"
            raise InputError(
                f"loss.{name} has {counted(len(values), 'value')}, but the data has {counted(num_classes, 'class')}"
                f"{names}; give one value per class, in this order, or a single number"
            )


def resolve_alpha(loss: LossConfig, class_counts: np.ndarray) -> float | list[float] | None:
    """`loss.alpha` as numbers.

    auto: the best for gamma, one per class if gamma is. inverse_frequency and effective_number: one weight per class.
    The commonest class has that of auto: what rare classes gain, it does not pay.
    class_counts: (K,), boxes of each class that an epoch shows.
    """
    if not isinstance(loss.alpha, str):
        return loss.alpha
    auto = best_alpha(gamma_of(loss)).numpy()
    if loss.alpha == "auto":
        return auto.tolist()
    weights = (
        inverse_frequency(class_counts)
        if loss.alpha == "inverse_frequency"
        else effective_number(class_counts, loss.effective_beta)
    )
    return (auto * weights).tolist()


def unweighted_alpha(loss: LossConfig, num_classes: int) -> list[float]:
    """The weight of each class's positives while those by class are deferred: that of auto."""
    return np.broadcast_to(best_alpha(gamma_of(loss)).numpy(), num_classes).tolist()


def weights_of_positives(
    loss: LossConfig, built: ClassificationLoss, class_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) float64 each: the weights by class of `loss`, and those while they are deferred. Relative to the latter for
    a loss without alpha. built, class_counts: as for `alpha_lines`."""
    alphas = [resolve_alpha(loss, class_counts), unweighted_alpha(loss, len(class_counts))]
    if not built.has_alpha:
        alphas = [relative_to_auto(loss, alpha) for alpha in alphas]
    return np.array(alphas[0]), np.array(alphas[1])


def alpha_lines(
    loss: LossConfig, built: ClassificationLoss, class_counts: np.ndarray, class_names: Sequence[str]
) -> list[str]:
    """What `loss.alpha` comes to, for the log: a table of weights by class, the commonest class first, or what auto
    chose, if that is not ALPHA; and what has no effect.

    built: the loss that `loss` describes. class_counts: (K,) int, boxes of each class that an epoch shows.
    """
    if loss.alpha_is_by_class:
        return _table(loss, built, class_counts, class_names)
    lines = ["loss.defer_alpha has no effect: loss.alpha is not by class"] if loss.defer_alpha else []
    if loss.alpha == "auto" and built.has_alpha:
        lines += _auto(loss, built)
    if isinstance(loss.alpha, float) and not built.has_alpha:
        lines.append(f"loss.alpha has no effect with {loss.classification}, which has none; weights by class have one")
    return lines


def inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """(K,) float64 weights, proportional to 1 / boxes, from 1 for the commonest class to MOST. counts: (K,)."""
    return _from_commonest(1 / np.maximum(counts, 1))


def effective_number(counts: np.ndarray, beta: float) -> np.ndarray:
    """(K,) float64 weights, proportional to (1 - beta) / (1 - beta^boxes), from 1 to MOST. counts: (K,).

    beta 0 weighs all classes alike, towards 1 it becomes the inverse frequency. Cui et al., Class-Balanced Loss Based
    on Effective Number of Samples, arXiv 1901.05555, eq. 2.
    """
    return _from_commonest((1 - beta) / (1 - beta ** np.maximum(counts, 1)))


def _from_commonest(weights: np.ndarray) -> np.ndarray:
    """(K,) weights scaled so that the least, the commonest class's, is 1, and none is more than MOST."""
    return np.minimum(weights / weights.min(), MOST)


def _table(
    loss: LossConfig, built: ClassificationLoss, class_counts: np.ndarray, class_names: Sequence[str]
) -> list[str]:
    """The weight of each class's positives as lines of a table (class, boxes in an epoch, alpha)."""
    alphas, auto = weights_of_positives(loss, built, class_counts)
    negatives = 1 - auto if built.has_alpha else auto
    width = max(len("class"), *map(len, class_names))
    order = np.argsort(-class_counts, kind="stable")
    later = f", from {loss.defer_alpha:.0%} of the training on, {spread(auto)} before" if loss.defer_alpha else ""
    falls = ""
    if built.least_gamma is not None:
        last = best_alpha(built.least_gamma).item()
        more = f"up to {last / auto[0]:g} times that, negatives {1 - last:g}"
        falls = f"; as gamma falls to {built.least_gamma:g}, {more}"
    return [
        f"weight of positives by class (negatives weigh {spread(negatives)}){later}{falls}:",
        f"  {'class':{width}s} {'an epoch':>8s} {'alpha':>6s}",
        *(f"  {class_names[k]:{width}s} {class_counts[k]:8d} {alphas[k]:6.3f}" for k in order),
    ]


def _auto(loss: LossConfig, built: ClassificationLoss) -> list[str]:
    """A line on what auto chose and why; none where it is the usual ALPHA."""
    gamma = gamma_of(loss)
    alpha = best_alpha(gamma).numpy()
    if built.least_gamma is not None:
        last = best_alpha(built.least_gamma).item()
        later = f"up to {last:g} as gamma falls to {built.least_gamma:g}"
        return [f"loss.alpha auto: {spread(alpha)}, and {later} ({SOURCE})"]
    if (alpha == ALPHA).all():
        return []
    return [
        f"loss.alpha auto: positives weigh {spread(alpha)} and negatives {spread(1 - alpha)}, best for "
        f"{loss.classification}'s gamma of {spread(np.array(gamma))} ({SOURCE})"
    ]


def spread(values: np.ndarray) -> str:
    """The one value, or the least and the greatest: `0.25`, `0.25 to 0.5`."""
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
