"""How far a figure can be trusted: its spread over resamples of the images, drawn with replacement.

Images are drawn rather than detections, because the detections of one image depend on each other (Efron & Tibshirani,
An Introduction to the Bootstrap, 1993). The intervals are percentiles, widened for few images (Hesterberg, What
Teachers Should Know About the Bootstrap, 2015, "expanded percentile").

In the resamples, AP is the plain area under precision and recall. COCO's AP takes the best precision from each recall
on, which is too high for noisy precisions: by up to half the spread where images are few, and by more in a resample.
Intervals from it missed the true AP in one case of six, not of twenty. With many images the two areas are the same.

Limits, seen in simulations (tests/evaluation/metrics/test_bootstrap.py): for a detector that finds nearly everything,
the intervals are a little too high and hold the true AP in 86 to 92 of 100 samples; for a class with one or two objects
found, they are too low and hold it in 68.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from detector.evaluation.metrics.average_precision import ClassHits
from detector.evaluation.metrics.matching import IOU_THRESHOLDS

DRAWS = 1000
CONFIDENCE = 0.95
MIN_IMAGES = 5  # with objects; fewer do not show how much images differ
FEW = 10  # objects; nothing is concluded from a class with fewer
NUMBERS_AT_ONCE = 1 << 22  # bounds the memory of a block of resamples


def draw_images(num_images: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """(draws, I) float32: how often each image is in each resample.

    Equal arguments give equal resamples, so that detectors on one dataset can be compared resample by resample.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, num_images), np.float32, order="F")
    for row in counts:
        row[:] = np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)
    return counts


def resampled_ap(hits: Sequence[ClassHits], counts: np.ndarray) -> np.ndarray:
    """(K, T, draws) AP of each class in each resample; NaN where the resample has no object of the class.

    counts: (draws, I) float32, see `draw_images`.
    """
    values = np.empty((len(hits), len(IOU_THRESHOLDS), len(counts)))
    for k, class_hits in enumerate(hits):
        size = max(1, NUMBERS_AT_ONCE // max(1, len(class_hits.images)))
        for start in range(0, len(counts), size):
            block = slice(start, start + size)
            values[k, :, block] = _resampled_class(class_hits, counts[block])
    return values


def _resampled_class(hits: ClassHits, counts: np.ndarray) -> np.ndarray:
    """(T, draws) AP of one class."""
    correction = hits.correction()[0]
    needed = (hits.true[0] | (correction != 0)).any(axis=0)  # the other candidates change nothing
    true, correction, places = hits.true[0][:, needed], correction[:, needed], hits.places[needed]
    num_objects = counts @ hits.objects_of_images[0].astype(np.float32)
    copies = counts.T[hits.images]  # (m, draws) how often each detection is there; rows are quicker to index
    detections_before = np.cumsum(copies, axis=0)[places]
    copies = copies[places]
    area = np.empty((len(IOU_THRESHOLDS), len(counts)))
    for t in range(len(IOU_THRESHOLDS)):
        seen = detections_before
        if correction[t].any():
            seen = detections_before + np.cumsum(copies * correction[t][:, None], axis=0)
        true_copies = copies[true[t]]
        half = (true_copies - 1) / 2  # precision is taken in the middle of the copies of one detection
        precision = (np.cumsum(true_copies, axis=0) - half) / np.maximum(seen[true[t]] - half, 1)
        area[t] = (true_copies * precision).sum(axis=0)
    return np.where(num_objects > 0, area / np.maximum(num_objects, 1), np.nan)


def mean_over_classes(draws: np.ndarray) -> np.ndarray:
    """(draws,) the mean of (K, draws) over the classes that have objects in the resample; NaN without any."""
    defined = ~np.isnan(draws)
    total = np.where(defined, draws, 0).sum(axis=0)
    return np.where(defined.any(axis=0), total / np.maximum(defined.sum(axis=0), 1), np.nan)


def interval(value: float, resampled: np.ndarray, images: float) -> list[float] | None:
    """[low, high] that holds the true value with CONFIDENCE.

    None where the resamples cannot tell: there are too few images, or all resamples are alike.

    value: the reported figure, which the interval also holds. resampled: (draws,) the figure in each resample, NaN
    where it is not defined. images: see `images_with_objects`.
    """
    valid = resampled[~np.isnan(resampled)]
    if images < MIN_IMAGES or len(valid) < len(resampled) / 2 or np.ptp(valid) == 0:
        return None
    reach = np.sqrt(images / (images - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, images - 1)
    low, high = np.percentile(valid, 100 * stats.norm.cdf([-reach, reach])).tolist()
    return [min(low, value), max(high, value)]


def images_with_objects(hits: Sequence[ClassHits]) -> float:
    """The number of images that have objects of a class; 0 without any object.

    Of several classes the harmonic mean, because the mean of their APs varies as the rarest of them do.
    """
    counts = [int((h.objects_of_images[0] > 0).sum()) for h in hits if h.num_objects[0] > 0]
    return len(counts) / sum(1 / n for n in counts) if counts else 0
