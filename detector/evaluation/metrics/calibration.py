"""Whether a score of 0.7 is right seven times in ten, and how to make it so.

D-ECE, the detection expected calibration error (Küppers et al., Multivariate Confidence Calibration for Object
Detection, CVPR Workshops 2020, arXiv 2004.13546, with the score as the only dimension): the gap between mean score and
precision in bins of the score, on average over the detections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from detector.evaluation.metrics.bootstrap import FEW
from detector.evaluation.metrics.matching import Matching

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """For each of K classes a rising piecewise linear map from scores to precision, as K arrays (knots,) each."""

    scores: list[np.ndarray]
    precision: list[np.ndarray]

    def __call__(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(n,) float32 calibrated scores."""
        calibrated = np.asarray(scores, np.float32).copy()
        for label in np.unique(labels).tolist():
            own = labels == label
            calibrated[own] = np.interp(scores[own], self.scores[label], self.precision[label])
        return calibrated

    def state(self) -> list[dict]:
        """Plain numbers for a checkpoint."""
        return [
            {"scores": s.tolist(), "precision": p.tolist()} for s, p in zip(self.scores, self.precision, strict=True)
        ]


def fit_calibration(matching: Matching, images: np.ndarray | None = None) -> Calibration:
    """Isotonic regression (scipy) of being right at IoU 0.5 on the score, class by class; a class with fewer than FEW
    detections that are right takes the map of all classes together. images: (I,) bool, those to learn from."""
    detections = matching.detections
    used = ~matching.ignored if images is None else ~matching.ignored & images[detections.images]
    scores, right = detections.scores[used].astype(np.float64), matching.object_of[used] >= 0
    labels = detections.labels[used]
    together = _isotonic(scores, right)
    maps = []
    for label in range(len(matching.data.class_names)):
        own = labels == label
        maps.append(_isotonic(scores[own], right[own]) if right[own].sum() >= FEW else together)
    return Calibration(*(list(part) for part in zip(*maps, strict=True)))


def _isotonic(scores: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots of the map: the mean score of each level of the regression, and its precision."""
    if not len(scores):
        return np.array([0.0, 1.0]), np.array([0.0, 1.0])
    order = np.lexsort((~right, scores))  # of equal scores the right ones first, so that they become one level
    fitted = isotonic_regression(right[order].astype(np.float64))
    blocks = fitted.blocks
    sizes = np.diff(blocks)
    means = np.add.reduceat(scores[order], blocks[:-1]) / sizes
    return means, fitted.x[blocks[:-1]]


def calibration_bins(scores: np.ndarray, right: np.ndarray) -> list[dict]:
    """For each of BINS equal bins of the score that has detections: mean score, precision, count."""
    place = np.minimum((scores * BINS).astype(int), BINS - 1)
    return [
        {
            "score": float(scores[place == b].mean()),
            "precision": float(right[place == b].mean()),
            "count": int((place == b).sum()),
        }
        for b in range(BINS)
        if (place == b).any()
    ]


def d_ece(bins: list[dict]) -> float:
    """The gaps of `calibration_bins`, weighted by their counts."""
    total = sum(b["count"] for b in bins)
    return sum(b["count"] * abs(b["score"] - b["precision"]) for b in bins) / max(1, total)
