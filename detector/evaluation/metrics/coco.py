"""COCO's metrics of detections: from our own arrays, or from pycocotools to check them."""

from __future__ import annotations

import contextlib
import io

import numpy as np

from detector.data.coco import CocoData
from detector.evaluation.detections import Detections, coco_results
from detector.evaluation.metrics.average_precision import SUMMARY, coco_figures, hits_by_class, mean_of
from detector.evaluation.metrics.matching import match
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean


def coco_metrics(detections: Detections, data: CocoData, backend: str = "arrays") -> dict:
    """The twelve COCO figures and `per_class`: class name -> {AP, AP50, num_gt}.

    A figure with no ground truth to take it from is -1, as COCO has it. backend: arrays or pycocotools.
    """
    if backend == "pycocotools":
        return pycocotools_metrics(detections, data)
    return coco_figures(hits_by_class(match(detections, data)), data.class_names)


def pycocotools_metrics(detections: Detections, data: CocoData) -> dict:
    """The same from the reference implementation, slower."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        reference, found = COCO(), COCO()
        reference.dataset = data.to_coco_api()
        reference.createIndex()
        results = coco_results(detections, data)
        if results:
            found = reference.loadRes(results)
        else:  # loadRes refuses an empty list
            found.dataset = {**reference.dataset, "annotations": []}
            found.createIndex()
        evaluator = COCOeval(reference, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    figures = {name: float(value) for name, value in zip(SUMMARY, evaluator.stats, strict=True)}
    return {**figures, "per_class": _per_class(evaluator, data)}


def value_of(metrics: dict, name: str) -> float:
    """The figure `name` of coco_metrics: one of SUMMARY, or a class, whose AP it is. Raises KeyError."""
    return metrics[name] if name in SUMMARY else metrics["per_class"][name]["AP"]


def check_measurable(name: str, data: CocoData) -> None:
    """Raises InputError if there is no figure `name` (see value_of), or `data` has no object to take it from."""
    if name not in SUMMARY and name not in data.class_names:
        raise InputError(
            f"train.metric: no figure {name!r}; {did_you_mean(name, [*SUMMARY, *data.class_names])} "
            f"({', '.join(SUMMARY)}, or a class)"
        )
    if value_of(coco_metrics(Detections.concatenate([]), data), name) < 0:
        raise InputError(f"train.metric: val has no object to measure {name} on")


def _per_class(evaluator, data: CocoData) -> dict[str, dict]:
    precision = evaluator.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class) for all areas, 100 detections
    precision = np.where(precision < 0, np.nan, precision)
    order = {category: k for k, category in enumerate(evaluator.params.catIds)}
    counts = data.class_counts()
    table = {}
    for name, category, count in zip(data.class_names, data.category_ids.tolist(), counts.tolist(), strict=True):
        of_class = precision[:, :, order[category]]
        table[name] = {"AP": mean_of(of_class), "AP50": mean_of(of_class[0]), "num_gt": count}
    return table
