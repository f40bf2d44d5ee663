"""Everything that is said of a detector on a dataset, from one matching: the figures of metrics.json."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from detector.data.class_groups import GROUPS, class_groups
from detector.data.coco import CocoData
from detector.evaluation.metrics.average_precision import ClassHits, coco_figures, mean_of, precision_at_recalls
from detector.evaluation.metrics.bootstrap import (
    FEW,
    draw_images,
    images_with_objects,
    interval,
    mean_over_classes,
    resampled_ap,
)
from detector.evaluation.metrics.calibration import calibration_bins, d_ece, fit_calibration
from detector.evaluation.metrics.confusion import confusion_matrix
from detector.evaluation.metrics.errors import error_costs, find_errors
from detector.evaluation.metrics.matching import Matching
from detector.evaluation.metrics.thresholds import Threshold


def analyse(
    matching: Matching, hits: list[ClassHits], thresholds: list[Threshold], train_counts: np.ndarray | None
) -> dict:
    """What metrics.json holds: COCO's figures, intervals, groups, errors, thresholds, curves, confusion, calibration.

    hits: of the matching. thresholds: what the detector is used with. train_counts: (K,) boxes of each class in
    training, by which classes are head, medium or tail; None = unknown, by the objects here.
    """
    data = matching.data
    metrics = coco_figures(hits, data.class_names)
    resampled = resampled_ap(hits, draw_images(len(data)))
    groups = class_groups(data.class_counts() if train_counts is None else train_counts)
    costs = error_costs(matching, find_errors(matching))
    for k, row in enumerate(metrics["per_class"].values()):
        row |= {
            "num_train": None if train_counts is None else int(train_counts[k]),
            "group": groups[k],
            "interval": interval(row["AP"], resampled[k].mean(axis=0), images_with_objects(hits[k : k + 1])),
            "conclusive": row["num_gt"] >= FEW,
            **_use(thresholds[k]),
            "recall_any": float((matching.found_by[_objects_of(data, k)] >= 0).mean()) if row["num_gt"] else -1.0,
            "errors": _mean_costs(costs, [k]),
        }
    everything = range(len(hits))
    metrics["intervals"] = {
        "AP": _interval(metrics["AP"], resampled.mean(axis=1), hits),
        "AP50": _interval(metrics["AP50"], resampled[:, 0], hits),
    }
    metrics["groups"] = {group: _group(group, groups, metrics, resampled, hits, costs) for group in GROUPS}
    metrics["grouped_by"] = "objects here" if train_counts is None else "training boxes"
    metrics["errors"] = _mean_costs(costs, everything)
    used = np.array([t.score for t in thresholds])
    names = [*data.class_names, "background"]
    metrics["confusion"] = {"names": names, "counts": confusion_matrix(matching, used).tolist()}
    metrics["pr_curves"] = {name: _pr_curve(hits[k]) for k, name in enumerate(data.class_names)}
    metrics["calibration"] = _calibration(matching)
    metrics["images"], metrics["objects"] = len(data), int(data.class_counts().sum())
    return metrics


def _objects_of(data: CocoData, label: int) -> np.ndarray:
    return (data.labels == label) & ~data.iscrowd


def _use(threshold: Threshold) -> dict:
    row = asdict(threshold)
    return {"threshold": row.pop("score"), **row}


def _mean_costs(costs: dict[str, np.ndarray], labels) -> dict[str, float]:
    """dAP of each kind of error, on average over the classes that have objects; 0 where none has."""
    return {name: max(0.0, mean_of(values[list(labels)])) for name, values in costs.items()}


def _interval(value: float, resampled: np.ndarray, hits: list[ClassHits]) -> list[float] | None:
    """Of a mean over classes, from (K, draws)."""
    if all(h.num_objects[0] < FEW for h in hits):
        return None
    return interval(value, mean_over_classes(resampled), images_with_objects(hits))


def _group(group: str, groups: list[str], metrics: dict, resampled: np.ndarray, hits: list[ClassHits], costs) -> dict:
    labels = [k for k, own in enumerate(groups) if own == group]
    names = list(metrics["per_class"])
    rows = [metrics["per_class"][names[k]] for k in labels]
    figures = {
        key: mean_of(np.array([row[key] if row["num_gt"] else np.nan for row in rows])) for key in ("AP", "AP50")
    }
    return {
        **figures,
        "interval": _interval(figures["AP"], resampled[labels].mean(axis=1), [hits[k] for k in labels]),
        "classes": [names[k] for k in labels],
        "errors": _mean_costs(costs, labels),
    }


def _pr_curve(hits: ClassHits) -> list[float]:
    """101 precisions at recall 0, 0.01 .. 1, at IoU 0.5."""
    true, seen = np.cumsum(hits.true[0, 0]), hits.seen()[0, 0]
    return [round(p, 4) for p in precision_at_recalls(true, seen, int(hits.num_objects[0])).tolist()]


def _calibration(matching: Matching) -> dict:
    """As it is, and calibrated by the map that the other half of the images gives."""
    detections = matching.detections
    calibrated = np.zeros(len(detections.scores), np.float32)
    for half in (0, 1):
        learnt = np.arange(len(matching.data)) % 2 != half
        own = ~learnt[detections.images]
        calibrated[own] = fit_calibration(matching, learnt)(detections.scores[own], detections.labels[own])
    used, right = ~matching.ignored, matching.object_of >= 0
    before = calibration_bins(detections.scores[used], right[used])
    after = calibration_bins(calibrated[used], right[used])
    return {"d_ece": d_ece(before), "d_ece_calibrated": d_ece(after), "bins": before, "calibrated_bins": after}
