"""Which detection finds which object: COCO's matching for every IoU threshold and object size, in one pass.

All figures of an evaluation (AP, intervals, errors, thresholds, calibration) and its pictures are read from the result.

Letters: n detections, B objects, C candidates, A = 4 size ranges (AREAS), T = 10 thresholds of IoU (IOU_THRESHOLDS).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from detector.data.coco import CocoData
from detector.evaluation.detections import Detections
from detector.ops.box_arrays import iou_xywh

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # square pixels
MAX_DETECTIONS = 100  # of each class in an image; those with lower scores do not count
MIN_IOU = 0.1  # pairs that overlap less are left out (t_b of TIDE)
PAIRS_AT_ONCE = 1 << 21  # bounds the memory of computing IoUs


@dataclass
class Pairs:
    """p pairs of a detection and an object (of any class) in the same image, with an IoU of at least MIN_IOU."""

    detections: np.ndarray  # (p,) int64, ascending
    objects: np.ndarray  # (p,) int64, index into the data's boxes
    iou: np.ndarray  # (p,) float64; with a crowd, intersection over the area of the detection


@dataclass
class Matching:
    """The result of `match`.

    A detection can find an object only if it is a candidate: it overlaps an object of its class by 0.5 or more, and is
    among the MAX_DETECTIONS of its image and class with the highest scores.
    """

    data: CocoData
    detections: Detections
    pairs: Pairs
    rank: np.ndarray  # (n,) int64: 0, 1, 2 ... by falling score among the detections of the same image and class
    candidates: np.ndarray  # (C,) int64: index of each candidate among the detections, ascending
    objects: np.ndarray  # (A, T, C) int32: the object that each candidate finds, or -1
    left_out: np.ndarray  # (A, B) bool: objects that do not count: crowds, and those outside the size range
    # The same at IoU 0.5 and for objects of all sizes, for each detection and each object:
    object_of: np.ndarray = field(init=False)  # (n,) int64: the object that the detection finds (no crowd), or -1
    ignored: np.ndarray = field(init=False)  # (n,) bool: neither right nor wrong: finds a crowd, or rank is too low
    found_by: np.ndarray = field(init=False)  # (B,) int64: the detection that finds the object, or -1

    def __post_init__(self) -> None:
        objects = self.objects[0, 0].astype(np.int64)
        finds_crowd = (objects >= 0) & self.left_out[0, objects]
        self.object_of = np.full(len(self.detections.scores), -1)
        self.object_of[self.candidates] = np.where(finds_crowd, -1, objects)
        self.ignored = self.rank >= MAX_DETECTIONS
        self.ignored[self.candidates[finds_crowd]] = True
        self.found_by = np.full(len(self.data.boxes), -1)
        right = np.flatnonzero(self.object_of >= 0)
        self.found_by[self.object_of[right]] = right


def match(detections: Detections, data: CocoData) -> Matching:
    """Match detections with the objects of `data`, as pycocotools does (COCOeval.evaluateImg).

    In each image and class, the detection with the highest score chooses first. It takes the free object that it
    overlaps most; an object that counts goes before one that is left out. A crowd stays free when it is taken.
    """
    pairs = _overlapping_pairs(detections, data)
    rank = _rank(-detections.scores, detections.labels, detections.images)
    same_class = detections.labels[pairs.detections] == data.labels[pairs.objects]
    usable = same_class & (pairs.iou >= IOU_THRESHOLDS[0]) & (rank[pairs.detections] < MAX_DETECTIONS)
    left_out = np.stack([data.iscrowd | (data.areas < low) | (data.areas > high) for low, high in AREAS.values()])
    candidates, candidate_of_pair = np.unique(pairs.detections[usable], return_inverse=True)
    # Candidates of different images or classes do not compete: the first of each choose together, then the second ...
    rounds = _rank(rank[candidates], detections.labels[candidates], detections.images[candidates])
    objects = _choose_in_rounds(
        rounds, candidate_of_pair, pairs.objects[usable], pairs.iou[usable], left_out, data.iscrowd
    )
    return Matching(data, detections, pairs, rank, candidates, objects, left_out)


def _overlapping_pairs(detections: Detections, data: CocoData) -> Pairs:
    """All pairs, computed for as many detections at a time as PAIRS_AT_ONCE allows."""
    counts = np.diff(data.first)[detections.images]  # objects to compare each detection with
    ends = np.cumsum(counts)
    parts, start = [], 0
    while start < len(counts):
        pairs_before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, pairs_before + PAIRS_AT_ONCE, side="right")))
        parts.append(_pairs_of(np.arange(start, stop), counts[start:stop], detections, data))
        start = stop
    if not parts:
        return Pairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _pairs_of(
    chosen: np.ndarray, counts: np.ndarray, detections: Detections, data: CocoData
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections, objects and IoU of the pairs of the `chosen` detections, whose images have `counts` objects."""
    pair_detections = np.repeat(chosen, counts)
    place_in_image = np.arange(len(pair_detections)) - np.repeat(np.cumsum(counts) - counts, counts)
    pair_objects = np.repeat(data.first[detections.images[chosen]], counts) + place_in_image
    boxes = detections.xywh()[pair_detections]
    iou = iou_xywh(boxes, data.boxes[pair_objects], data.iscrowd[pair_objects])
    kept = iou >= MIN_IOU
    return pair_detections[kept], pair_objects[kept], iou[kept]


def _rank(key: np.ndarray, labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """(n,) int64: 0, 1, 2 ... by rising `key` among the detections of the same image and class."""
    order = np.lexsort((key, labels, images))
    count = len(order)
    starts = np.ones(count, bool)
    starts[1:] = (np.diff(images[order]) != 0) | (np.diff(labels[order]) != 0)
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count) - np.maximum.accumulate(np.where(starts, np.arange(count), 0))
    return rank


def _choose_in_rounds(
    rounds: np.ndarray,
    candidate_of_pair: np.ndarray,
    objects: np.ndarray,
    iou: np.ndarray,
    left_out: np.ndarray,
    iscrowd: np.ndarray,
) -> np.ndarray:
    """(A, T, C) int32: the object that each candidate takes, or -1.

    rounds: (C,) when each candidate chooses. candidate_of_pair (q,) ascending, objects (q,), iou (q,): the pairs.
    """
    found = np.full((len(AREAS), len(IOU_THRESHOLDS), len(rounds)), -1, np.int32)
    free = np.ones((len(AREAS), len(IOU_THRESHOLDS), left_out.shape[1]), bool)
    order = np.argsort(rounds[candidate_of_pair], kind="stable")
    ends = np.searchsorted(
        rounds[candidate_of_pair][order], np.arange(rounds.max(initial=-1) + 1), side="right"
    )  # of each round among the ordered pairs
    for pairs in np.split(order, ends[:-1]) if len(ends) else []:
        candidates, first = np.unique(candidate_of_pair[pairs], return_index=True)
        taken = _best_objects(objects[pairs], iou[pairs], first, free, left_out)
        found[:, :, candidates] = taken
        a, t, c = np.nonzero(taken >= 0)
        free[a, t, taken[a, t, c]] = iscrowd[taken[a, t, c]]
    return found


def _best_objects(
    objects: np.ndarray, iou: np.ndarray, first: np.ndarray, free: np.ndarray, left_out: np.ndarray
) -> np.ndarray:
    """(A, T, c) int64: which free object each of c detections takes, or -1.

    objects, iou: (q,) the pairs, sorted by detection. first: (c,) where the pairs of each detection begin.
    free: (A, T, B) bool. Of objects with the same IoU the last one is taken, as in pycocotools.
    """
    owner = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(iou))))  # (q,) which of the c detections
    possible = free[:, :, objects] & (iou >= IOU_THRESHOLDS[:, None])
    counting = possible & ~left_out[:, None, objects]
    eligible = np.where(np.logical_or.reduceat(counting, first, axis=2)[:, :, owner], counting, possible)
    overlap = np.where(eligible, iou, -1)
    best = np.maximum.reduceat(overlap, first, axis=2)
    is_best = eligible & (overlap == best[:, :, owner])
    place = np.maximum.reduceat(np.where(is_best, np.arange(len(iou)), -1), first, axis=2)
    return np.where(place >= 0, objects[place], -1)
