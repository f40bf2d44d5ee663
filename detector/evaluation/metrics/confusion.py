"""The confusion matrix of a detector, used with a threshold for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.evaluation.metrics.matching import IOU_THRESHOLDS, Matching
from detector.evaluation.metrics.score_thresholds import f1


@dataclass(frozen=True)
class ClassCounts:
    """What became of the objects of a class, and of its detections: its row and its column of a confusion matrix.

    Every object is found, taken for another class, or not found. Every detection is right, on an object of another
    class, or on background: that is all that finds no object, so wrong places and second boxes too.
    """

    found: int  # objects, and so the detections that are right
    taken_for: dict[str, int]  # other class → objects of this one, the most first
    not_found: int
    on_others: dict[str, int]  # other class → detections on its objects, the most first
    on_background: int

    @property
    def objects(self) -> int:
        return self.found + sum(self.taken_for.values()) + self.not_found

    @property
    def detections(self) -> int:
        return self.found + sum(self.on_others.values()) + self.on_background

    @property
    def f1(self) -> float:
        return f1(self.found, self.detections, self.objects)


def counts_by_class(names: Sequence[str], matrix: np.ndarray | Sequence[Sequence[int]]) -> dict[str, ClassCounts]:
    """Class name → its counts. names: K+1, the last one is the background's; matrix: see `confusion_matrix`."""
    counts, background = np.asarray(matrix), len(names) - 1

    def others(line: np.ndarray, own: int) -> dict[str, int]:
        most_first = np.argsort(-line[:background], kind="stable").tolist()
        return {names[k]: int(line[k]) for k in most_first if k != own and line[k]}

    return {
        names[k]: ClassCounts(
            found=int(counts[k, k]),
            taken_for=others(counts[k], k),
            not_found=int(counts[k, background]),
            on_others=others(counts[:, k], k),
            on_background=int(counts[background, k]),
        )
        for k in range(background)
    }


def confusion_matrix(matching: Matching, thresholds: np.ndarray) -> np.ndarray:
    """(K+1, K+1) int64 counts: row = class of the object, column = class of the detection.

    The last row and column are the background: detections of no object, and objects without a detection.

    thresholds: (K,), see `pair_all`.
    """
    detections, data, background = matching.detections, matching.data, len(matching.data.class_names)
    used, partner = pair_all(matching, thresholds)
    left = ~data.iscrowd
    left[partner[partner >= 0]] = False
    class_of_object = np.append(data.labels, background)[partner[used]]  # -1: the last one
    counts = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(counts, (class_of_object, detections.labels[used]), 1)
    np.add.at(counts, (data.labels[left], background), 1)
    return counts


def pair_all(matching: Matching, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool: the detections that are used; (n,) int64: the object that each of them is paired with, or -1.

    thresholds: (K,); detections below the threshold of their class are left out, and so are those that find crowds.
    An object is paired first with the detection that finds it (same class, IoU 0.5 or more). The other objects and
    detections are paired by falling IoU, down to 0.5, whatever their classes.
    """
    detections, data, pairs = matching.detections, matching.data, matching.pairs
    used = (detections.scores >= thresholds[detections.labels]) & ~matching.ignored
    partner = np.where(used, matching.object_of, -1)
    taken = data.iscrowd.copy()
    taken[partner[partner >= 0]] = True
    order = np.argsort(-pairs.iou, kind="stable")
    order = order[(pairs.iou[order] >= IOU_THRESHOLDS[0]) & used[pairs.detections[order]]]
    for detection, box in zip(pairs.detections[order].tolist(), pairs.objects[order].tolist(), strict=True):
        if partner[detection] < 0 and not taken[box]:
            partner[detection], taken[box] = box, True
    return used, partner
