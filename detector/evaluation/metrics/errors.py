"""Which errors cost AP: the kinds of error of TIDE (Bolya et al., TIDE: A General Toolbox for Identifying Object
Detection Errors, ECCV 2020, arXiv 2008.08115), and how much AP50 would rise if those of one kind were repaired.

A detection that finds no object is, with t_f = 0.5 and t_b = 0.1 (section 2.2), the first of:
  localisation    its best overlap with an object of its class is an IoU of t_b to t_f
  classification  it overlaps an object of another class by t_f or more
  duplicate       it overlaps an object of its class by t_f or more, which a detection with a higher score finds
  background      it overlaps no object by t_b
  both            all others: it overlaps an object of another class by t_b to t_f
An object is missed if nothing finds it and no localisation or classification error aims at it.

Repairs (section 2.3), each made alone:
  localisation, classification  of the detections that aim at an object which nothing finds, the one with the highest
                                score finds it; the others of this kind are removed
  duplicate, background, both   the detections are removed
  missed                        the objects are removed
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.metrics.average_precision import average_precision
from detector.evaluation.metrics.matching import IOU_THRESHOLDS, Matching

CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(5)
KINDS = {  # kind → in words; the first five are errors of detections, in the order of the numbers above
    "classification": "right place, wrong class",
    "localisation": "right class, wrong place",
    "both": "wrong class and wrong place",
    "duplicate": "a second box",
    "background": "nothing is there",
    "missed": "nothing came near",
}
SUMS = {  # two more repairs: all detections that find no object removed; all objects that are not found removed
    "false_positive": "all detections that find no object",
    "false_negative": "all objects that no detection finds",
}
DETECTION_KINDS = list(KINDS)[:5]


@dataclass
class Errors:
    """The kind of each of n detections, and which of B objects are missed."""

    kind: np.ndarray  # (n,) int64: index into DETECTION_KINDS; -1 for a detection that is right or does not count
    target: np.ndarray  # (n,) int64: the object that a localisation or classification error aims at, or -1
    missed: np.ndarray  # (B,) bool


@dataclass
class _Scored:
    """m detections that count, for AP50."""

    labels: np.ndarray  # (m,) int64
    scores: np.ndarray  # (m,) float32
    true: np.ndarray  # (m,) bool

    def select(self, chosen: np.ndarray) -> _Scored:
        return _Scored(self.labels[chosen], self.scores[chosen], self.true[chosen])

    def ap(self, num_objects: np.ndarray) -> np.ndarray:
        """(K,) AP50 of each class with num_objects (K,) objects; NaN without objects."""
        order = np.lexsort((-self.scores, self.labels))
        first = np.searchsorted(self.labels[order], np.arange(len(num_objects) + 1))
        values = np.empty(len(num_objects))
        for k, count in enumerate(num_objects.tolist()):
            true = self.true[order[first[k] : first[k + 1]]]
            values[k] = average_precision(np.cumsum(true), np.arange(1, len(true) + 1), count)
        return values


def find_errors(matching: Matching) -> Errors:
    """The kind of every false detection, and the missed objects."""
    detections, data, pairs = matching.detections, matching.data, matching.pairs
    no_crowd = ~data.iscrowd[pairs.objects]
    finder, objects, iou = pairs.detections[no_crowd], pairs.objects[no_crowd], pairs.iou[no_crowd]
    same = detections.labels[finder] == data.labels[objects]
    same_iou, same_class = _best_pair(finder[same], objects[same], iou[same], len(detections.scores))
    other_iou, other_class = _best_pair(finder[~same], objects[~same], iou[~same], len(detections.scores))

    false = (matching.object_of < 0) & ~matching.ignored
    kind = np.select(
        [
            (same_class >= 0) & (same_iou < IOU_THRESHOLDS[0]),
            other_iou >= IOU_THRESHOLDS[0],
            same_iou >= IOU_THRESHOLDS[0],
            (same_class < 0) & (other_class < 0),
        ],
        [LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND],
        BOTH,
    )
    kind = np.where(false, kind, -1)
    target = np.select([kind == LOCALISATION, kind == CLASSIFICATION], [same_class, other_class], -1)
    aimed_at = np.zeros(len(data.boxes), bool)
    aimed_at[target[target >= 0]] = True
    missed = (matching.found_by < 0) & ~data.iscrowd & ~aimed_at
    return Errors(kind, target, missed)


def _best_pair(finder: np.ndarray, objects: np.ndarray, iou: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the greatest IoU of each detection among these pairs (0 without any), and its object (-1)."""
    order = np.lexsort((iou, finder))  # the last pair of each detection is its best
    best_iou, best = np.zeros(n), np.full(n, -1)
    best_iou[finder[order]], best[finder[order]] = iou[order], objects[order]
    return best_iou, best


def error_costs(matching: Matching, errors: Errors) -> dict[str, np.ndarray]:
    """For each of KINDS and SUMS: (K,) by how much AP50 of each class rises with the repair; NaN without objects.

    A class whose objects are all missed rises to 1.
    """
    data, counted = matching.data, ~matching.ignored
    labels_of, found_by = np.append(data.labels, -1), np.append(matching.found_by, -1)  # the last: of target -1
    now = _Scored(
        matching.detections.labels[counted], matching.detections.scores[counted], matching.object_of[counted] >= 0
    )
    counts = data.class_counts()
    before = now.ap(counts)
    kind, target = errors.kind[counted], errors.target[counted]
    repairable = _first_to_aim(target, now.scores, found_by)
    costs = {}
    for k, name in enumerate(DETECTION_KINDS):
        repaired = repairable & (kind == k)
        labels = np.where(repaired, labels_of[target], now.labels)
        after = _Scored(labels, now.scores, now.true | repaired).select((kind != k) | repairable)
        costs[name] = after.ap(counts) - before
    missed = np.bincount(data.labels[errors.missed], minlength=len(before))
    found = np.bincount(now.labels[now.true], minlength=len(before))
    for name, left in (("missed", counts - missed), ("false_negative", found)):
        costs[name] = np.where((left == 0) & (counts > 0), 1.0, now.ap(left)) - before
    costs["false_positive"] = now.select(now.true).ap(counts) - before
    return costs


def _first_to_aim(target: np.ndarray, scores: np.ndarray, found_by: np.ndarray) -> np.ndarray:
    """(m,) bool: the detection with the highest score of those that aim at the same object, if nothing finds it."""
    first_to_aim = np.zeros(len(target), bool)
    aiming = np.flatnonzero((target >= 0) & (found_by[target] < 0))
    order = aiming[np.lexsort((-scores[aiming], target[aiming]))]
    _, first = np.unique(target[order], return_index=True)
    first_to_aim[order[first]] = True
    return first_to_aim
