"""The figures of an evaluation that name a number: COCO's, AP of each class, and AP by frequency group.

A metric that is to be shown every epoch, and that `train.metric` can name, is added in `figures_of`.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from detector.data.class_groups import GROUPS, class_groups
from detector.data.coco import CocoData
from detector.evaluation.detections import Detections, coco_results
from detector.evaluation.metrics.average_precision import SUMMARY, ClassHits, coco_figures, hits_by_class, mean_of
from detector.evaluation.metrics.matching import match
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean


def figures_of(
    hits: list[ClassHits], data: CocoData, train_counts: np.ndarray | None, reference: dict[str, Any] | None = None
) -> dict[str, Any]:
    """COCO's twelve figures, `per_class` and `groups`; a figure is -1 where there is no object to measure it on.

    per_class: class name → {AP, AP50, num_gt}. groups: head, medium, tail → {AP, AP50, classes}.
    hits: of the matching (`hits_by_class`). train_counts: (K,) training boxes of each class, by which classes are
    grouped; None = unknown, by the objects of `data`. reference: COCO's figures from pycocotools, instead of ours.
    """
    figures = coco_figures(hits, data.class_names) if reference is None else reference
    groups = class_groups(data.class_counts() if train_counts is None else train_counts)
    return {**figures, "groups": group_figures(figures["per_class"], groups)}


def group_figures(per_class: dict[str, dict], groups: list[str]) -> dict[str, dict]:
    """For head, medium and tail: AP and AP50, the means over the classes of the group that have objects (-1 without
    any), and the names of its `classes`. groups: the group of each class, in the order of `per_class`."""
    table = {}
    for group in GROUPS:
        rows = {
            name: row for (name, row), its_group in zip(per_class.items(), groups, strict=True) if its_group == group
        }
        measured = [row for row in rows.values() if row["num_gt"]]
        figures = {key: mean_of(np.array([row[key] for row in measured], np.float64)) for key in ("AP", "AP50")}
        table[group] = {**figures, "classes": list(rows)}
    return table


def value_of(figures: dict[str, Any], name: str) -> float:
    """The number that `name` (`train.metric`) means in `figures_of`. Raises KeyError.

    It is a figure, a class (its AP) or a group (its AP), in this order: a class called tail hides the group, and the AP
    of a class called AP cannot be named.
    """
    return _named(figures)[name]


def check_measurable(name: str, data: CocoData, train_counts: np.ndarray | None) -> None:
    """Raise InputError if `name` means no figure (`value_of`), or if `data` has no object to measure it on."""
    nothing_found = hits_by_class(match(Detections.concatenate([]), data))
    values = _named(figures_of(nothing_found, data, train_counts))
    if name not in values:
        raise InputError(f"train.metric: no figure {name!r}; {did_you_mean(name, values, limit=20)}")
    if values[name] < 0:
        raise InputError(f"train.metric: val has no object to measure {name} on")


def _named(figures: dict[str, Any]) -> dict[str, float]:
    """Every name that `value_of` knows → its value."""
    values = {name: value for name, value in figures.items() if isinstance(value, float)}
    for rows in (figures["per_class"], figures["groups"]):
        for name, row in rows.items():
            values.setdefault(name, row["AP"])
    return values


def pycocotools_metrics(detections: Detections, data: CocoData) -> dict[str, Any]:
    """What `coco_figures` gives, from the reference implementation, which is slower."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset: Any = data.to_coco_api()
    empty: Any = {**dataset, "annotations": []}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        reference, found = COCO(), COCO()
        reference.dataset = dataset
        reference.createIndex()
        results = coco_results(detections, data)
        if results:
            found = reference.loadRes(results)
        else:  # loadRes refuses an empty list
            found.dataset = empty
            found.createIndex()
        evaluator = COCOeval(reference, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = evaluator.eval["precision"][:, :, :, 0, -1]  # (T, recall, K), objects of all sizes, 100 detections
    precision = np.where(precision < 0, np.nan, precision)
    place_of = {category: k for k, category in enumerate(evaluator.params.catIds)}
    per_class = {}
    counts = data.class_counts().tolist()
    for name, category, count in zip(data.class_names, data.category_ids.tolist(), counts, strict=True):
        values = precision[:, :, place_of[category]]
        per_class[name] = {"AP": mean_of(values), "AP50": mean_of(values[0]), "num_gt": count}
    figures = {name: float(value) for name, value in zip(SUMMARY, evaluator.stats, strict=True)}
    return {**figures, "per_class": per_class}
