"""Everything that is said about a detector on a dataset, from one matching: the content of metrics.json."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from detector.evaluation.metrics.average_precision import ClassHits, mean_of, precision_at_recalls
from detector.evaluation.metrics.bootstrap import (
    FEW,
    draw_images,
    images_with_objects,
    interval,
    mean_over_classes,
    resampled_ap,
)
from detector.evaluation.metrics.calibration import calibration_figures
from detector.evaluation.metrics.coco import figures_of
from detector.evaluation.metrics.confusion import confusion_matrix
from detector.evaluation.metrics.errors import error_costs, find_errors
from detector.evaluation.metrics.matching import Matching
from detector.evaluation.metrics.score_thresholds import Threshold


def analyse(
    matching: Matching,
    hits: list[ClassHits],
    thresholds: Sequence[Threshold],
    train_counts: np.ndarray | None,
    reference: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The figures of `figures_of`, and with them intervals, errors, thresholds, curves, confusion and calibration.

    hits: of the matching. thresholds: K, which the detector is used with. train_counts: (K,) training boxes of each
    class, by which classes are head, medium or tail; None = unknown, by the objects here. reference: see `figures_of`.
    """
    data = matching.data
    figures = figures_of(hits, data, train_counts, reference)
    resampled = resampled_ap(hits, draw_images(len(data)))  # (K, T, draws)
    costs = error_costs(matching, find_errors(matching))
    return {
        **figures,
        "per_class": _class_rows(figures, matching, hits, thresholds, train_counts, resampled, costs),
        "groups": _group_rows(figures, data.class_names, hits, resampled, costs),
        "intervals": {
            "AP": _mean_interval(figures["AP"], resampled.mean(axis=1), hits),
            "AP50": _mean_interval(figures["AP50"], resampled[:, 0], hits),
        },
        "grouped_by": "objects here" if train_counts is None else "training boxes",
        "errors": _mean_costs(costs, range(len(hits))),
        "confusion": {
            "names": [*data.class_names, "background"],
            "counts": confusion_matrix(matching, np.array([t.score for t in thresholds])).tolist(),
        },
        "pr_curves": {name: _pr_curve(h) for name, h in zip(data.class_names, hits, strict=True)},
        "calibration": calibration_figures(matching),
        "images": len(data),
        "objects": int(data.class_counts().sum()),
    }


def _class_rows(
    figures: dict[str, Any],
    matching: Matching,
    hits: list[ClassHits],
    thresholds: Sequence[Threshold],
    train_counts: np.ndarray | None,
    resampled: np.ndarray,
    costs: dict[str, np.ndarray],
) -> dict[str, dict[str, Any]]:
    """`per_class` of the figures, with all that is said of one class."""
    group_of = {name: group for group, row in figures["groups"].items() for name in row["classes"]}
    rows = {}
    for k, (name, row) in enumerate(figures["per_class"].items()):
        rows[name] = {
            **row,
            "num_train": None if train_counts is None else int(train_counts[k]),
            "group": group_of[name],
            "interval": interval(row["AP"], resampled[k].mean(axis=0), images_with_objects([hits[k]])),
            "conclusive": row["num_gt"] >= FEW,
            **_threshold_row(thresholds[k]),
            "recall_any": _share_found(matching, k),
            "errors": _mean_costs(costs, [k]),
        }
    return rows


def _group_rows(
    figures: dict[str, Any],
    class_names: list[str],
    hits: list[ClassHits],
    resampled: np.ndarray,
    costs: dict[str, np.ndarray],
) -> dict[str, dict[str, Any]]:
    """`groups` of the figures, with intervals and errors."""
    label_of = {name: label for label, name in enumerate(class_names)}
    rows = {}
    for group, row in figures["groups"].items():
        labels = [label_of[name] for name in row["classes"]]
        rows[group] = {
            **row,
            "interval": _mean_interval(row["AP"], resampled[labels].mean(axis=1), [hits[k] for k in labels]),
            "errors": _mean_costs(costs, labels),
        }
    return rows


def _threshold_row(threshold: Threshold) -> dict[str, Any]:
    row = asdict(threshold)
    return {"threshold": row.pop("score"), **row}


def _share_found(matching: Matching, label: int) -> float:
    """Of the objects of a class, those that a detection finds at IoU 0.5, whatever its score; -1 without objects."""
    objects = (matching.data.labels == label) & ~matching.data.iscrowd
    return float((matching.found_by[objects] >= 0).mean()) if objects.any() else -1.0


def _mean_costs(costs: dict[str, np.ndarray], labels: Iterable[int]) -> dict[str, float]:
    """The cost of each kind of error, averaged over those of the classes that have objects; 0 if none has."""
    chosen = list(labels)
    return {name: max(0.0, mean_of(values[chosen])) for name, values in costs.items()}


def _mean_interval(value: float, resampled: np.ndarray, hits: list[ClassHits]) -> list[float] | None:
    """The interval of a mean over classes. resampled: (classes, draws); hits: of these classes."""
    if all(h.num_objects[0] < FEW for h in hits):
        return None
    return interval(value, mean_over_classes(resampled), images_with_objects(hits))


def _pr_curve(hits: ClassHits) -> list[float]:
    """101 precisions at recall 0, 0.01 ... 1, at IoU 0.5."""
    true, seen = np.cumsum(hits.true[0, 0]), hits.seen()[0, 0]
    return [round(p, 4) for p in precision_at_recalls(true, seen, int(hits.num_objects[0])).tolist()]
