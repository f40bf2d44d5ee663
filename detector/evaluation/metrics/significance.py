"""How far chance moves a figure of runs that differ only in their seeds, or the difference of two such figures.

Other images would give another figure, and other seeds, too. The mean over n seeds varies by two parts:

- the images, as far as they move all seeds alike: from the bootstrap (bootstrap.py), with I - 1 degrees of freedom for
  I images;
- the seeds: the variance of their figures on the images at hand, divided by n, with n - 1 degrees of freedom. In it are
  images that suit one seed better than another. This part is in the bootstrap, too, so it is subtracted there.

Variances add up, for a difference those of both figures. The sum has the effective degrees of freedom of Satterthwaite
(An Approximate Distribution of Estimates of Variance Components, 1946) and Welch (The Generalization of "Student's"
Problem, 1947), and the estimate divided by its root follows Student's t.

One seed tells nothing of the others: its own part is left out, and nothing is taken off the images'. Two figures with
the same seeds are not taken as pairs. A seed may lead two settings to like figures, and then the sum is too large, on
the safe side. Taken as pairs, the degrees of freedom would be half as many. With few seeds that costs more than the
pairing gains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from detector.evaluation.metrics.bootstrap import CONFIDENCE

Numbers = float | np.ndarray


@dataclass(frozen=True)
class SeedFigures:
    """A figure of S runs that differ only in their seeds; or many such figures, in leading dimensions."""

    values: np.ndarray  # (..., S)
    resampled: np.ndarray  # (..., S, draws): in each resample of the images, the same for all; NaN where undefined
    images: float  # how many it is measured on: bootstrap.py, `images_with_objects`

    @property
    def value(self) -> np.ndarray:
        """(...) the mean over the seeds."""
        return self.values.mean(axis=-1)

    def means(self) -> np.ndarray:
        """(..., draws) the mean over the seeds in each resample."""
        return self.resampled.mean(axis=-2)


@dataclass(frozen=True)
class Chance:
    """How an estimate scatters about the truth: Student's t. Numbers, or arrays of one shape."""

    error: Numbers  # standard error; 0: the estimate is certain
    degrees: Numbers  # of freedom

    def interval(self, estimate: Numbers) -> tuple[Numbers, Numbers]:
        """(low, high) that holds the truth with CONFIDENCE."""
        reach = stats.t.ppf((1 + CONFIDENCE) / 2, self.degrees) * self.error
        return estimate - reach, estimate + reach

    def p_of_fall(self, estimate: Numbers) -> Numbers:
        """The probability of an estimate this low or lower if the truth is 0. Where the error is 0, it is not 0."""
        with np.errstate(divide="ignore"):
            return stats.t.cdf(np.divide(estimate, self.error), self.degrees)


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
        """Of K estimates that are judged together, (..., K, P).

        Few seeds tell little of their share in one estimate, and Welch and Satterthwaite's degrees of freedom scatter
        with it; `holm` looks far out in the tails, where that matters. If the estimates are alike, their mean share is
        known better. If they are not, it is wrong for each. So the lesser degrees count, which errs on the safe side.
        """
        shares = self.parts / self.parts.sum(axis=-1, keepdims=True)
        own, shared = [1 / (s**2 / self.degrees).sum(axis=-1) for s in (shares, shares.mean(axis=-2, keepdims=True))]
        return Chance(self.error, np.minimum(own, shared))


def variances_of(figure: SeedFigures, baseline: SeedFigures | None = None) -> Variances:
    """Of a figure's mean over its seeds; with a baseline, of its difference from the baseline's mean."""
    entries = [figure] if baseline is None else [figure, baseline]
    several = [entry for entry in entries if entry.values.shape[-1] > 1]
    parts = [_images_part(figure, baseline, several), *map(_seeds_part, several)]
    degrees = [figure.images - 1, *(entry.values.shape[-1] - 1 for entry in several)]
    return Variances(np.stack(parts, axis=-1), np.broadcast_to(degrees, (*np.shape(parts[0]), len(parts))))


def _seeds_part(entry: SeedFigures) -> np.ndarray:
    """(...) how the mean varies with the seeds, on the images at hand."""
    return entry.values.var(axis=-1, ddof=1) / entry.values.shape[-1]


def _images_part(figure: SeedFigures, baseline: SeedFigures | None, several: list[SeedFigures]) -> np.ndarray:
    """(...) how mean or difference varies with the images, without what suits one seed better than another.

    several: those of more than one seed.
    """
    drawn = figure.means() - (0 if baseline is None else baseline.means())
    images = np.nanvar(drawn, axis=-1) - sum(map(_suited, several))
    return np.maximum(images, 0) * figure.images / (figure.images - 1)  # a bootstrap divides by I, not by I - 1


def _suited(entry: SeedFigures) -> np.ndarray:
    """(...) the part of a mean's variance over the resamples that comes of images which suit one seed better."""
    n = entry.values.shape[-1]
    apart = entry.resampled - entry.means()[..., None, :]
    return np.nanvar(apart, axis=-1).sum(axis=-1) / (n - 1) / n


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
