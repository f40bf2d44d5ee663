"""COCO's average precision and recall, computed from a matching.

COCO's AP is the mean of 101 precisions, at recall 0, 0.01 ... 1; the precision at a recall is the best one reached
there or at any higher recall. Recall rises only at true positives, so these are all one needs: AP = sum over true
positives of (points of recall that it is the first to reach) x (best precision from there on) / 101.

Letters, beside those of `matching.py`: K classes, I images, m detections of one class, c candidates among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.metrics.matching import AREAS, IOU_THRESHOLDS, MAX_DETECTIONS, Matching

RECALLS = np.linspace(0, 1, 101)
SUMMARY = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]  # COCOeval.stats


@dataclass
class ClassHits:
    """The m detections of one class that count, by falling score, and which of them are true positives."""

    images: np.ndarray  # (m,) int64
    scores: np.ndarray  # (m,) float32
    in_size: np.ndarray  # (A, m) bool: in the size range, so a false positive if it finds no object
    places: np.ndarray  # (c,) int64: where the candidates stand among the m
    true: np.ndarray  # (A, T, c) bool: true positive
    counted: np.ndarray  # (A, T, c) bool: true or false positive, not ignored
    rank: np.ndarray  # (c,) int64: place by score in its image
    objects_of_images: np.ndarray  # (A, I) int64: objects that count, in each image

    @property
    def num_objects(self) -> np.ndarray:
        """(A,) int64: objects that count."""
        return self.objects_of_images.sum(axis=1)

    def seen(self) -> np.ndarray:
        """(A, T, c) int64: detections that count, up to and with each candidate."""
        in_size = np.cumsum(self.in_size, axis=1)[:, None, self.places]
        return in_size + np.cumsum(self.correction(), axis=2)

    def correction(self) -> np.ndarray:
        """(A, T, c) int64: `counted` minus `in_size` of each candidate, -1, 0 or 1."""
        return self.counted.astype(np.int64) - self.in_size[:, None, self.places]


def hits_by_class(matching: Matching) -> list[ClassHits]:
    """One ClassHits for each of the K classes. Equal scores stand in the order of the image ids, as in pycocotools."""
    data, detections = matching.data, matching.detections
    num_detections, num_classes = len(detections.scores), len(data.class_names)
    place_by_id = np.argsort(np.argsort(data.image_ids))
    order = np.lexsort(
        (np.arange(num_detections), place_by_id[detections.images], -detections.scores, detections.labels)
    )
    order = order[matching.rank[order] < MAX_DETECTIONS]
    areas = np.prod(detections.xywh()[:, 2:], axis=1)
    in_size = np.stack([(areas >= low) & (areas <= high) for low, high in AREAS.values()])
    candidate_of = np.full(num_detections, -1)  # place among the candidates, -1 for the others
    candidate_of[matching.candidates] = np.arange(len(matching.candidates))
    box_images = data.box_images
    first = np.searchsorted(detections.labels[order], np.arange(num_classes + 1))
    hits = []
    for label in range(num_classes):
        objects = data.labels == label
        objects_of_images = [
            np.bincount(box_images[objects & ~left_out], minlength=len(data)) for left_out in matching.left_out
        ]
        chosen = order[first[label] : first[label + 1]]
        hits.append(_hits(matching, chosen, candidate_of[chosen], in_size[:, chosen], np.stack(objects_of_images)))
    return hits


def _hits(
    matching: Matching,
    chosen: np.ndarray,
    candidate_of: np.ndarray,
    in_size: np.ndarray,
    objects_of_images: np.ndarray,
) -> ClassHits:
    """Of one class. chosen: (m,) its detections; candidate_of: (m,) place among the candidates, or -1."""
    places = np.flatnonzero(candidate_of >= 0)
    objects = matching.objects[:, :, candidate_of[places]]
    found_left_out = np.stack([out[found] for out, found in zip(matching.left_out, objects, strict=True)])
    return ClassHits(
        images=matching.detections.images[chosen],
        scores=matching.detections.scores[chosen],
        in_size=in_size,
        places=places,
        true=(objects >= 0) & ~found_left_out,
        counted=np.where(objects >= 0, ~found_left_out, in_size[:, None, places]),
        rank=matching.rank[chosen[places]],
        objects_of_images=objects_of_images,
    )


def average_precision(true: np.ndarray, seen: np.ndarray, num_objects: np.ndarray | int) -> np.ndarray:
    """COCO's 101-point AP, shape (...); NaN where there is no object.

    true, seen: (..., c), by falling score: the number of true positives, and of detections that count, up to and with
    each one. Entries that are not true positives do no harm. num_objects: (...).
    """
    num_objects = np.asarray(num_objects)[..., None]
    precision, points = _best_from_here(true, seen), points_reached(true / np.maximum(num_objects, 1))
    value = (precision * np.diff(points, axis=-1, prepend=0)).sum(axis=-1) / len(RECALLS)
    return np.where(num_objects[..., 0] > 0, value, np.nan)


def precision_at_recalls(true: np.ndarray, seen: np.ndarray, num_objects: int) -> np.ndarray:
    """(101,) the best precision at each of RECALLS or beyond; 0 where it is not reached. true, seen: (c,) as in
    `average_precision`."""
    precision, points = _best_from_here(true, seen), points_reached(true / max(num_objects, 1))
    curve = np.zeros(len(RECALLS))
    first_to_reach = np.searchsorted(points, np.arange(len(RECALLS)), side="right")
    reached = first_to_reach < len(points)
    curve[reached] = precision[first_to_reach[reached]]
    return curve


def points_reached(recall: np.ndarray) -> np.ndarray:
    """How many of RECALLS are <= each recall, compared exactly; 0 for recall 0, as nothing was found."""
    whole = np.minimum((recall * 100).astype(np.int64), 100)  # right, or off by one because of rounding
    above = RECALLS[np.minimum(whole + 1, 100)] <= recall
    points = whole + 1 + (above & (whole < 100)) - (RECALLS[whole] > recall)
    return np.where(recall > 0, points, 0)


def _best_from_here(true: np.ndarray, seen: np.ndarray) -> np.ndarray:
    precision = true / np.maximum(seen, 1)
    return np.flip(np.maximum.accumulate(np.flip(precision, axis=-1), axis=-1), axis=-1)


def coco_figures(hits: list[ClassHits], class_names: list[str]) -> dict:
    """COCO's twelve figures (SUMMARY), and `per_class`: class name → {AP, AP50, num_gt}.

    As in COCO, a figure is -1 where there is no object to measure it on. AP: the mean over IOU_THRESHOLDS.
    """
    ap = np.stack([_class_ap(h) for h in hits])  # (K, A, T)
    recall = {most: np.stack([_recall(h, most) for h in hits]) for most in (1, 10, MAX_DETECTIONS)}  # each (K, A, T)
    at_most_100 = recall[MAX_DETECTIONS]
    figures = [
        ap[:, 0], ap[:, 0, 0], ap[:, 0, 5], ap[:, 1], ap[:, 2], ap[:, 3],
        recall[1][:, 0], recall[10][:, 0], at_most_100[:, 0], at_most_100[:, 1], at_most_100[:, 2], at_most_100[:, 3],
    ]  # fmt: skip
    per_class = {
        name: {"AP": mean_of(ap[k, 0]), "AP50": mean_of(ap[k, 0, 0]), "num_gt": int(hits[k].num_objects[0])}
        for k, name in enumerate(class_names)
    }
    return {**{name: mean_of(values) for name, values in zip(SUMMARY, figures, strict=True)}, "per_class": per_class}


def _class_ap(hits: ClassHits) -> np.ndarray:
    """(A, T)"""
    num_objects = np.repeat(hits.num_objects[:, None], len(IOU_THRESHOLDS), axis=1)
    return average_precision(np.cumsum(hits.true, axis=2), hits.seen(), num_objects)


def _recall(hits: ClassHits, most: int) -> np.ndarray:
    """(A, T) the share of the objects that the first `most` detections of each image find; NaN without objects."""
    found = (hits.true & (hits.rank < most)).sum(axis=2)
    num_objects = hits.num_objects[:, None]
    return np.where(num_objects > 0, found / np.maximum(num_objects, 1), np.nan)


def mean_of(values: np.ndarray) -> float:
    """The mean without NaN; -1 where all are NaN, as in COCO."""
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else -1.0
