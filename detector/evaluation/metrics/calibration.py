"""Is a detection with a score of 0.7 right seven times in ten? How far the scores are from that, and their correction.

D-ECE, the detection expected calibration error (Küppers et al., Multivariate Confidence Calibration for Object
Detection, CVPR Workshops 2020, arXiv 2004.13546, with the score as the only dimension): detections are binned by score;
the gap between mean score and precision of each bin, averaged over the detections.
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
    """A rising piecewise linear map from score to precision for each of K classes, given by its knots."""

    scores: list[np.ndarray]  # K arrays (knots,) float64
    precision: list[np.ndarray]  # K arrays (knots,) float64

    def __call__(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(n,) float32 calibrated scores of n detections; labels: (n,) in 0..K-1."""
        calibrated = np.asarray(scores, np.float32).copy()
        for label in np.unique(labels).tolist():
            chosen = labels == label
            calibrated[chosen] = np.interp(scores[chosen], self.scores[label], self.precision[label])
        return calibrated

    def state(self) -> list[dict]:
        """Plain numbers for a checkpoint."""
        return [
            {"scores": s.tolist(), "precision": p.tolist()} for s, p in zip(self.scores, self.precision, strict=True)
        ]


def fit_calibration(matching: Matching, images: np.ndarray | None = None) -> Calibration:
    """For each class, isotonic regression (scipy) of "is right at IoU 0.5" on the score.

    A class with fewer than FEW right detections takes the map fitted to the detections of all classes.
    images: (I,) bool, the images to learn from; None = all.
    """
    detections = matching.detections
    used = ~matching.ignored if images is None else ~matching.ignored & images[detections.images]
    scores, right = detections.scores[used].astype(np.float64), matching.object_of[used] >= 0
    labels = detections.labels[used]
    of_all_classes = _isotonic(scores, right)
    maps = []
    for label in range(len(matching.data.class_names)):
        chosen = labels == label
        maps.append(_isotonic(scores[chosen], right[chosen]) if right[chosen].sum() >= FEW else of_all_classes)
    return Calibration([scores for scores, _ in maps], [precision for _, precision in maps])


def _isotonic(scores: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots of the map: the mean score of each level of the regression, and its precision."""
    if not len(scores):
        return np.array([0.0, 1.0]), np.array([0.0, 1.0])
    order = np.lexsort((~right, scores))  # of equal scores the right ones first, so that they share one level
    fitted = isotonic_regression(right[order].astype(np.float64))
    level_ends = fitted.blocks
    means = np.add.reduceat(scores[order], level_ends[:-1]) / np.diff(level_ends)
    return means, fitted.x[level_ends[:-1]]


def calibration_bins(scores: np.ndarray, right: np.ndarray) -> list[dict]:
    """The mean score, precision and count of the detections in each of BINS equal bins of the score; empty bins are
    left out. scores: (n,) in 0..1; right: (n,) bool."""
    bin_of = np.minimum((scores * BINS).astype(int), BINS - 1)
    return [
        {
            "score": float(scores[bin_of == b].mean()),
            "precision": float(right[bin_of == b].mean()),
            "count": int((bin_of == b).sum()),
        }
        for b in range(BINS)
        if (bin_of == b).any()
    ]


def d_ece(bins: list[dict]) -> float:
    """The gaps between score and precision of `calibration_bins`, weighted by their counts; 0 without bins."""
    total = sum(b["count"] for b in bins)
    return sum(b["count"] * abs(b["score"] - b["precision"]) for b in bins) / max(1, total)


def calibration_figures(matching: Matching) -> dict:
    """D-ECE and bins of the scores as they are, and calibrated.

    Each half of the images is calibrated by the map fitted to the other half, so that no image judges what it taught.
    """
    detections = matching.detections
    calibrated = np.zeros(len(detections.scores), np.float32)
    for half in (0, 1):
        learnt_from = np.arange(len(matching.data)) % 2 != half
        judged = ~learnt_from[detections.images]
        calibration = fit_calibration(matching, learnt_from)
        calibrated[judged] = calibration(detections.scores[judged], detections.labels[judged])
    used, right = ~matching.ignored, matching.object_of >= 0
    before = calibration_bins(detections.scores[used], right[used])
    after = calibration_bins(calibrated[used], right[used])
    return {"d_ece": d_ece(before), "d_ece_calibrated": d_ece(after), "bins": before, "calibrated_bins": after}
