"""What costs AP: the errors of TIDE (Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors,
ECCV 2020, arXiv 2008.08115), and how much AP50 would rise were those of a kind put right.

Of a detection that finds nothing (t_f = 0.5, t_b = 0.1; section 2.2), in this order:
  localisation    overlaps an object of its class best with an IoU of t_b to t_f
  classification  overlaps an object of another class by t_f or more
  duplicate       overlaps an object of its class by t_f or more, which a surer one has found
  background      overlaps no object by t_b
  both            what is left: an object of another class, by t_b to t_f
  missed          an object that is neither found nor the target of the first two
Put right (section 2.3): the target of a localisation or classification error is found by the surest detection of those
it is the target of, unless it is found already; all other false detections of the kind are gone; missed objects do not
count. Each is measured alone, on everything else as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.metrics.average_precision import average_precision
from detector.evaluation.metrics.matching import IOUS, Matching

LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND, BOTH = range(5)
KINDS = ("localisation", "classification", "duplicate", "background", "both")  # of detections
FIXES = (*KINDS, "missed", "false_positive", "false_negative")


@dataclass
class Errors:
    """kind (n,) int64: index into KINDS, or -1 for a detection that is right or does not count. target (n,) int64: the
    object a localisation or classification error is about, or -1. missed (B,) bool."""

    kind: np.ndarray
    target: np.ndarray
    missed: np.ndarray


@dataclass
class _Scored:
    """Detections that count, for AP50: labels, scores and true (m,)."""

    labels: np.ndarray
    scores: np.ndarray
    true: np.ndarray

    def ap(self, num_objects: np.ndarray) -> np.ndarray:
        """(K,) AP50 among num_objects (K,); NaN without objects."""
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
    real = ~data.iscrowd[pairs.objects]
    finder, objects, iou = pairs.detections[real], pairs.objects[real], pairs.iou[real]
    same = detections.labels[finder] == data.labels[objects]
    own_iou, own = _best_pair(finder[same], objects[same], iou[same], len(detections.scores))
    other_iou, other = _best_pair(finder[~same], objects[~same], iou[~same], len(detections.scores))

    wrong = (matching.object_of < 0) & ~matching.ignored
    near_own = (own >= 0) & (own_iou < IOUS[0])
    kind = np.select(
        [near_own, other_iou >= IOUS[0], own_iou >= IOUS[0], (own < 0) & (other < 0)],
        [LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND],
        BOTH,
    )
    kind = np.where(wrong, kind, -1)
    target = np.select([kind == LOCALISATION, kind == CLASSIFICATION], [own, other], -1)
    aimed_at = np.zeros(len(data.boxes), bool)
    aimed_at[target[target >= 0]] = True
    missed = (matching.found_by < 0) & ~data.iscrowd & ~aimed_at
    return Errors(kind, target, missed)


def _best_pair(finder: np.ndarray, objects: np.ndarray, iou: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) greatest IoU of each detection with these objects (0 for none), and that object (-1)."""
    order = np.lexsort((iou, finder))  # the best of each detection stands last
    best_iou, best = np.zeros(n), np.full(n, -1)
    best_iou[finder[order]], best[finder[order]] = iou[order], objects[order]
    return best_iou, best


def error_costs(matching: Matching, errors: Errors) -> dict[str, np.ndarray]:
    """For each of FIXES (K,) by how much AP50 of each class rises; NaN for a class without objects.

    A class all of whose objects are missed rises to 1 without them.
    """
    data, counted = matching.data, ~matching.ignored
    now = _Scored(
        matching.detections.labels[counted],
        matching.detections.scores[counted],
        matching.object_of[counted] >= 0,
    )
    counts = data.class_counts()
    kind, target = errors.kind[counted], errors.target[counted]
    rescued = _surest_of_unfound(target, now.scores, matching.found_by)
    before = now.ap(counts)
    costs = {}
    for k, name in enumerate(KINDS):
        keep = (kind != k) | rescued
        right = rescued & (kind == k)
        labels = np.where(right, data.labels[target], now.labels)
        fixed = _Scored(labels[keep], now.scores[keep], (now.true | right)[keep])
        costs[name] = fixed.ap(counts) - before
    missed = np.bincount(data.labels[errors.missed], minlength=len(before))
    found = np.bincount(now.labels[now.true], minlength=len(before))
    only_right = _Scored(now.labels[now.true], now.scores[now.true], now.true[now.true])
    for name, left in (("missed", counts - missed), ("false_negative", found)):
        costs[name] = np.where((left == 0) & (counts > 0), 1.0, now.ap(left)) - before
    costs["false_positive"] = only_right.ap(counts) - before
    return costs


def _surest_of_unfound(target: np.ndarray, scores: np.ndarray, found_by: np.ndarray) -> np.ndarray:
    """(m,) bool: the detection of the highest score among those with one target, where nothing found that."""
    rescued = np.zeros(len(target), bool)
    aiming = np.flatnonzero((target >= 0) & (found_by[target] < 0))
    order = aiming[np.lexsort((-scores[aiming], target[aiming]))]
    _, first = np.unique(target[order], return_index=True)
    rescued[order[first]] = True
    return rescued
