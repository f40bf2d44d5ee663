"""Values of objects, grouped by the objects' class."""

from __future__ import annotations

import numpy as np


def split_by_class(values: np.ndarray, labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """The values (B,) of each of K classes, in their order. labels: (B,) int64 in 0..K-1."""
    ordered = values[np.argsort(labels, kind="stable")]
    return np.split(ordered, np.cumsum(np.bincount(labels, minlength=classes))[:-1])


def class_shares(is_counted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(K,) float64: the share of each class's objects for which `is_counted` (B,) bool is true; NaN without objects."""
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, np.bincount(labels, is_counted, minlength=classes) / np.maximum(counts, 1), np.nan)
