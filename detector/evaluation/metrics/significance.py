"""How far chance moves a figure of runs that differ only in their seeds, or the difference of two such figures.

Other images would give another figure, and other seeds, too. The mean over n seeds varies by two parts:

- the images, as far as they move all seeds alike: from the bootstrap (bootstrap.py), with I - 1 degrees of freedom for
  I images;
- the seeds: the variance of their figures on the images at hand, divided by n, with n - 1 degrees of freedom. In it are
  images that suit one seed better than another. The bootstrap of the mean has these, too; they are taken off there, to
  count once.

Variances add up, for a difference those of both figures. The sum has the effective degrees of freedom of Satterthwaite
(An Approximate Distribution of Estimates of Variance Components, 1946) and Welch (The Generalization of "Student's"
Problem, 1947), and the estimate divided by its root follows Student's t.

One seed tells nothing of the others: its own part is left out, and nothing is taken off the images'. Two figures with
the same seeds are not taken as pairs. A seed may lead two settings to like figures, and then the sum is too large, on
the safe side. Pairs would have half the degrees of freedom, which costs more where seeds are few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from detector.evaluation.metrics.bootstrap import CONFIDENCE


@dataclass(frozen=True)
class SeedFigures:
    """A figure of S runs that differ only in their seeds; or many such figures, in leading dimensions."""

    values: np.ndarray  # (..., S)
    resampled: np.ndarray  # (..., S, draws): in each resample of the images, the same for all
    images: float  # how many it is measured on: bootstrap.py, `images_with_objects`

    @property
    def value(self) -> Any:
        """(...) the mean over the seeds."""
        return self.values.mean(axis=-1)


@dataclass(frozen=True)
class Chance:
    """How an estimate scatters about the truth: Student's t. Numbers, or arrays of one shape."""

    error: Any  # standard error, above 0
    degrees: Any  # of freedom

    def interval(self, estimate: Any) -> tuple[Any, Any]:
        """(low, high) that holds the truth with CONFIDENCE."""
        reach = stats.t.ppf((1 + CONFIDENCE) / 2, self.degrees) * self.error
        return estimate - reach, estimate + reach

    def p_of_fall(self, estimate: Any) -> Any:
        """The probability of an estimate this low or lower if the truth is 0."""
        return stats.t.cdf(estimate / self.error, self.degrees)


@dataclass(frozen=True)
class Variances:
    """The P parts of an estimate's variance; or of many estimates, in leading dimensions."""

    parts: np.ndarray  # (..., P)
    degrees: np.ndarray  # (..., P) of freedom, of each part

    @property
    def error(self) -> np.ndarray:
        """(...) standard error."""
        return np.sqrt(self.parts.sum(axis=-1))

    def chance(self) -> Chance:
        """Of K like estimates, (..., K, P): each part has the same share in all of them.

        Few seeds tell little of their share in one estimate, and Welch and Satterthwaite's degrees of freedom scatter
        with it. The mean share of K estimates is known better, and far out in the tails, where `holm` needs it.
        """
        shares = (self.parts / self.parts.sum(axis=-1, keepdims=True)).mean(axis=-2, keepdims=True)
        return Chance(self.error, 1 / (shares**2 / self.degrees).sum(axis=-1))


def variances_of(figure: SeedFigures, baseline: SeedFigures | None = None) -> Variances:
    """Of a figure's mean over its seeds; with a baseline, of its difference from the baseline's mean."""
    entries = [figure] if baseline is None else [figure, baseline]
    means = [entry.resampled.mean(axis=-2, keepdims=True) for entry in entries]
    drawn = means[0] if baseline is None else means[0] - means[1]
    images, seed_parts = drawn.var(axis=-1)[..., 0], []
    for entry, mean in zip(entries, means, strict=True):
        n = entry.values.shape[-1]
        if n > 1:
            suited = (entry.resampled - mean).var(axis=-1).sum(axis=-1) / (
                n - 1
            )  # by the images, more than other seeds
            images = images - suited / n
            seed_parts.append((entry.values.var(axis=-1, ddof=1) / n, n - 1))
    # A bootstrap divides by I, not by I - 1.
    images_part = np.maximum(images, 0) * figure.images / (figure.images - 1)
    parts, degrees = zip((images_part, figure.images - 1), *seed_parts, strict=True)
    return Variances(np.stack(parts, axis=-1), np.broadcast_to(degrees, (*np.shape(images), len(parts))))


def holm(p_values: np.ndarray) -> np.ndarray:
    """(..., m) p-values of m tests, raised for their number: with no truth in any of them, the least is p or lower with
    probability p at most.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979: the least is multiplied by m, the next one by
    m - 1 and so on, and none ends below a lesser one. The tests may depend on one another.
    """
    order = np.argsort(p_values, axis=-1)
    times = np.arange(p_values.shape[-1], 0, -1)
    raised = np.maximum.accumulate(times * np.take_along_axis(p_values, order, axis=-1), axis=-1)
    adjusted = np.empty_like(raised)
    np.put_along_axis(adjusted, order, np.minimum(raised, 1), axis=-1)
    return adjusted
