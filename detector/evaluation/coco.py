"""COCO's metrics from flat arrays of detections. Category ids go back to the dataset's own here, once."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import numpy as np

from detector.data.coco import CocoData
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean

SUMMARY = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]  # COCOeval.stats


@dataclass
class Detections:
    """n detections of a dataset: images (n,) int64 index of the image in the data, boxes (n, 4) float32 xyxy in
    original pixels, scores (n,) float32, labels (n,) int64 in 0..K-1."""

    images: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    @classmethod
    def from_batch(cls, found: list[dict], first: int) -> Detections:
        """From postprocess's list of {boxes, scores, labels}, the first of them image `first` of the data."""
        counts = [len(f["scores"]) for f in found]
        stacked = {key: np.concatenate([f[key].cpu().numpy() for f in found]) for key in ("boxes", "scores", "labels")}
        return cls(images=np.repeat(np.arange(first, first + len(found)), counts), **stacked)

    @classmethod
    def concatenate(cls, parts: list[Detections]) -> Detections:
        empty = cls(np.zeros(0, int), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
        parts = [empty, *parts]
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in cls.__dataclass_fields__))

    def select(self, keep: np.ndarray) -> Detections:
        """Those of a boolean mask (n,)."""
        return Detections(*(getattr(self, f)[keep] for f in self.__dataclass_fields__))


def coco_results(detections: Detections, data: CocoData) -> list[dict]:
    """COCO results format: the dataset's own image and category ids, xywh in original pixels."""
    boxes = detections.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(
            data.image_ids[detections.images].tolist(),
            data.category_ids[detections.labels].tolist(),
            boxes.tolist(),
            detections.scores.tolist(),
            strict=True,
        )
    ]


def coco_metrics(detections: Detections, data: CocoData, backend: str = "faster_coco_eval") -> dict:
    """The twelve COCO figures and `per_class`: class name -> {AP, AP50, num_gt}.

    A figure with no ground truth to take it from is -1, as COCO has it. backend: faster_coco_eval or pycocotools.
    """
    evaluator = _run(coco_results(detections, data), data.to_coco_api(), backend)
    return {
        **{name: float(value) for name, value in zip(SUMMARY, evaluator.stats, strict=False)},
        "per_class": _per_class(evaluator, data),
    }


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


def _run(results: list[dict], truth: dict, backend: str):
    if backend == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval as Evaluator
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluator
    with contextlib.redirect_stdout(io.StringIO()):  # both libraries print as they go
        reference, found = COCO(), COCO()
        reference.dataset = truth
        reference.createIndex()
        if results:
            found = reference.loadRes(results)
        else:  # loadRes refuses an empty list
            found.dataset = {**truth, "annotations": []}
            found.createIndex()
        evaluator = Evaluator(reference, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def _per_class(evaluator, data: CocoData) -> dict[str, dict]:
    precision = evaluator.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class) for all areas, 100 detections
    order = {category: k for k, category in enumerate(evaluator.params.catIds)}
    counts = data.class_counts()
    table = {}
    for name, category, count in zip(data.class_names, data.category_ids.tolist(), counts.tolist(), strict=True):
        of_class = precision[:, :, order[category]]
        table[name] = {"AP": _mean(of_class), "AP50": _mean(of_class[0]), "num_gt": count}
    return table


def _mean(precision: np.ndarray) -> float:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else -1.0
