"""How far a figure can be trusted: its spread over images drawn again, with replacement, from those there are.

Images are drawn rather than detections, as those of one image depend on each other (Efron & Tibshirani, An Introduction
to the Bootstrap, 1993). The intervals are percentiles, a little further out for few images (Hesterberg, What Teachers
Should Know About the Bootstrap, 2015, "expanded percentile").

In the resamples AP is the plain area under precision and recall. COCO's takes the best precision from each point on;
of many noisy ones that is too high, by up to half the spread where images are few, and more so in a resample: intervals
of it were seen to miss the true AP in one case of six rather than of twenty. With many images the two are the same.

Limits, seen in simulations (tests/evaluation/test_bootstrap.py): of a detector that finds nearly all, the intervals are
a little too high and hold the truth in 86 to 92 of 100 samples; of a class of which one or two objects are found, they
are too low and hold it in 68.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from detector.evaluation.metrics.average_precision import ClassHits
from detector.evaluation.metrics.matching import IOUS

DRAWS = 1000
CONFIDENCE = 0.95
LEAST = 5  # images with objects; fewer do not show how images differ
FEW = 10  # objects; a class with fewer is not to be concluded from
BLOCK = 1 << 22  # numbers at a time


def draw_images(num_images: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """(draws, I) float32: how often each image is in each resample. The same for the same arguments, so that figures of
    several detectors on one dataset can be compared draw by draw."""
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, num_images), np.float32, order="F")
    for row in counts:
        row[:] = np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)
    return counts


def resampled_ap(hits: Sequence[ClassHits], counts: np.ndarray) -> np.ndarray:
    """(K, T, draws) AP of each class in each resample `counts` (draws, I); NaN where it has none of its objects."""
    values = np.empty((len(hits), len(IOUS), len(counts)))
    for k, of_class in enumerate(hits):
        size = max(1, BLOCK // max(1, len(of_class.images)))
        for start in range(0, len(counts), size):
            block = slice(start, start + size)
            values[k, :, block] = _resampled_class(of_class, counts[block])
    return values


def _resampled_class(hits: ClassHits, counts: np.ndarray) -> np.ndarray:
    """(T, draws)"""
    correction = hits.correction()[0]
    of_use = (hits.true[0] | (correction != 0)).any(axis=0)
    true, correction, places = hits.true[0][:, of_use], correction[:, of_use], hits.places[of_use]
    num_objects = counts @ hits.objects_of_images[0].astype(np.float32)
    weight = counts.T[hits.images]  # (m, draws), as rows are quicker to choose than columns
    seen = np.cumsum(weight, axis=0)[places]
    weight = weight[places]
    area = np.empty((len(IOUS), len(counts)))
    for t in range(len(IOUS)):
        counted = seen
        if correction[t].any():
            counted = seen + np.cumsum(weight * correction[t][:, None], axis=0)
        copies = weight[true[t]]
        before_half = (copies - 1) / 2  # of several copies of one detection, precision in their middle
        precision = (np.cumsum(copies, axis=0) - before_half) / np.maximum(counted[true[t]] - before_half, 1)
        area[t] = (copies * precision).sum(axis=0)
    return np.where(num_objects > 0, area / np.maximum(num_objects, 1), np.nan)


def mean_over_classes(draws: np.ndarray) -> np.ndarray:
    """(draws,) mean of (K, draws) over the classes that a resample has objects of, NaN without any."""
    defined = ~np.isnan(draws)
    total = np.where(defined, draws, 0).sum(axis=0)
    return np.where(defined.any(axis=0), total / np.maximum(defined.sum(axis=0), 1), np.nan)


def interval(value: float, resampled: np.ndarray, images: float) -> list[float] | None:
    """[low, high] that holds the true value with CONFIDENCE; None where the resamples cannot say: of too few
    images, or all alike.

    value: the figure as it is reported, which the interval also holds. resampled (draws,): in each resample, NaN where
    it is not defined. images: see images_with_objects.
    """
    valid = resampled[~np.isnan(resampled)]
    if images < LEAST or len(valid) < len(resampled) / 2 or np.ptp(valid) == 0:
        return None
    reach = np.sqrt(images / (images - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, images - 1)
    low, high = np.percentile(valid, 100 * stats.norm.cdf([-reach, reach])).tolist()
    return [min(low, value), max(high, value)]


def images_with_objects(hits: Sequence[ClassHits]) -> float:
    """Images that have objects of a class; of several classes the harmonic mean, as the mean of their APs varies as the
    rarest of them do. 0 without any object."""
    counts = [int((h.objects_of_images[0] > 0).sum()) for h in hits if h.num_objects[0] > 0]
    return len(counts) / sum(1 / n for n in counts) if counts else 0
