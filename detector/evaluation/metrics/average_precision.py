"""Average precision from a matching: COCO's figures, and the curves and resamples that come from the same counts.

COCO's AP is the mean of 101 precisions, at recall 0, 0.01 .. 1, each the best that is reached there or beyond.
Precision only rises at a true positive, so that those are all one needs: AP = sum over true positives of (points of
recall that it is the first to reach) x (best precision from there on) / 101.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.metrics.matching import AREAS, IOUS, MOST, Matching

RECALLS = np.linspace(0, 1, 101)
SUMMARY = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]  # COCOeval.stats


@dataclass
class ClassHits:
    """The m detections of one class that count, the surest first, and which of them are true positives.

    Those among them that can be one are the c candidates.
    """

    images: np.ndarray  # (m,) int64
    scores: np.ndarray  # (m,) float32
    in_size: np.ndarray  # (A, m) bool: of the size range, so a false positive if it finds nothing
    places: np.ndarray  # (c,) int64: where the candidates stand among the m
    true: np.ndarray  # (A, T, c) bool: true positive
    counted: np.ndarray  # (A, T, c) bool: true or false positive, not ignored
    rank: np.ndarray  # (c,) int64: of its image and class
    objects_of_images: np.ndarray  # (A, I) int64: the objects that count in each image

    @property
    def num_objects(self) -> np.ndarray:
        """(A,) int64"""
        return self.objects_of_images.sum(axis=1)

    def seen(self) -> np.ndarray:
        """(A, T, c) int64: detections that count, up to each candidate and with it."""
        base = np.cumsum(self.in_size, axis=1)[:, None, self.places]
        return base + np.cumsum(self.correction(), axis=2)

    def correction(self) -> np.ndarray:
        """(A, T, c) int64 in -1..1: what each candidate counts beyond `in_size`."""
        return self.counted.astype(np.int64) - self.in_size[:, None, self.places]


def hits_by_class(matching: Matching) -> list[ClassHits]:
    """One ClassHits for each of the K classes. Equal scores stand in the order of the image ids, as in pycocotools."""
    data, found = matching.data, matching.detections
    by_id = np.argsort(np.argsort(data.image_ids))
    order = np.lexsort((np.arange(len(found.scores)), by_id[found.images], -found.scores, found.labels))
    order = order[matching.rank[order] < MOST]
    areas = np.prod(found.xywh()[:, 2:], axis=1)
    in_size = np.stack([(areas >= low) & (areas <= high) for low, high in AREAS.values()])
    candidate_at = np.full(len(found.scores), -1)
    candidate_at[matching.candidates] = np.arange(len(matching.candidates))
    first = np.searchsorted(found.labels[order], np.arange(len(data.class_names) + 1))
    return [
        _hits(matching, label, order[first[label] : first[label + 1]], in_size, candidate_at)
        for label in range(len(data.class_names))
    ]


def _hits(matching: Matching, label: int, own: np.ndarray, in_size: np.ndarray, candidate_at: np.ndarray) -> ClassHits:
    data = matching.data
    places = np.flatnonzero(candidate_at[own] >= 0)
    objects = matching.objects[:, :, candidate_at[own[places]]]
    hidden = np.stack([out[taken] for out, taken in zip(matching.left_out, objects, strict=True)])
    image_of_box = np.repeat(np.arange(len(data)), np.diff(data.first))
    of_class = data.labels == label
    return ClassHits(
        images=matching.detections.images[own],
        scores=matching.detections.scores[own],
        in_size=in_size[:, own],
        places=places,
        true=(objects >= 0) & ~hidden,
        counted=np.where(objects >= 0, ~hidden, in_size[:, None, own[places]]),
        rank=matching.rank[own[places]],
        objects_of_images=np.stack(
            [np.bincount(image_of_box[of_class & ~out], minlength=len(data)) for out in matching.left_out]
        ),
    )


def average_precision(true: np.ndarray, seen: np.ndarray, num_objects: np.ndarray | int) -> np.ndarray:
    """COCO's 101-point AP (...,) of true positives.

    true, seen: (..., c), the surest first: how many true positives (and detections that count) there are up to each of
    them and with it. Entries that are no true positive do no harm. num_objects: (...,). NaN where there is no object.
    """
    num_objects = np.asarray(num_objects)[..., None]
    precision, points = _best_from_here(true, seen), points_reached(true / np.maximum(num_objects, 1))
    value = (precision * np.diff(points, axis=-1, prepend=0)).sum(axis=-1) / len(RECALLS)
    return np.where(num_objects[..., 0] > 0, value, np.nan)


def precision_at_recalls(true: np.ndarray, seen: np.ndarray, num_objects: int) -> np.ndarray:
    """(101,) best precision at each of RECALLS or beyond, from true, seen (c,)."""
    precision, points = _best_from_here(true, seen), points_reached(true / max(num_objects, 1))
    curve = np.zeros(len(RECALLS))
    at = np.searchsorted(points, np.arange(len(RECALLS)), side="right")  # the first with more points than come before
    curve[at < len(points)] = precision[at[at < len(points)]]
    return curve


def points_reached(recall: np.ndarray) -> np.ndarray:
    """How many of RECALLS are <= each recall, to the last bit; none where it is 0, as nothing was found."""
    whole = np.minimum((recall * 100).astype(np.int64), 100)  # right, or off by one by rounding
    above = RECALLS[np.minimum(whole + 1, 100)] <= recall
    points = whole + 1 + (above & (whole < 100)) - (RECALLS[whole] > recall)
    return np.where(recall > 0, points, 0)


def _best_from_here(true: np.ndarray, seen: np.ndarray) -> np.ndarray:
    precision = true / np.maximum(seen, 1)
    return np.flip(np.maximum.accumulate(np.flip(precision, axis=-1), axis=-1), axis=-1)


def coco_figures(hits: list[ClassHits], class_names: list[str]) -> dict:
    """COCO's twelve figures, and `per_class`: class name -> {AP, AP50, num_gt}; -1 with no object to take it from."""
    true = [np.cumsum(h.true, axis=2) for h in hits]
    ap = np.stack(
        [
            average_precision(t, h.seen(), np.repeat(h.num_objects[:, None], len(IOUS), axis=1))
            for t, h in zip(true, hits, strict=True)
        ]
    )  # (K, A, T)
    recall = {most: np.stack([_recall(h, most) for h in hits]) for most in (1, 10, MOST)}  # each (K, A, T)
    figures = [
        ap[:, 0], ap[:, 0, 0], ap[:, 0, 5], ap[:, 1], ap[:, 2], ap[:, 3],
        recall[1][:, 0], recall[10][:, 0], recall[MOST][:, 0],
        recall[MOST][:, 1], recall[MOST][:, 2], recall[MOST][:, 3],
    ]  # fmt: skip
    per_class = {
        name: {"AP": mean_of(ap[k, 0]), "AP50": mean_of(ap[k, 0, 0]), "num_gt": int(hits[k].num_objects[0])}
        for k, name in enumerate(class_names)
    }
    return {**{name: mean_of(values) for name, values in zip(SUMMARY, figures, strict=True)}, "per_class": per_class}


def _recall(hits: ClassHits, most: int) -> np.ndarray:
    """(A, T) share of the objects that the first `most` detections of each image find; NaN where there is none."""
    found = (hits.true & (hits.rank < most)).sum(axis=2)
    num_objects = hits.num_objects[:, None]
    return np.where(num_objects > 0, found / np.maximum(num_objects, 1), np.nan)


def mean_of(values: np.ndarray) -> float:
    """The mean of what is there, -1 where nothing is (COCO's sign)."""
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else -1.0
