"""Which detection finds which object: COCO's matching for every IoU threshold and object size, in one pass.

Everything that evaluation says (AP, intervals, errors, thresholds, pictures) is read from its arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from detector.data.coco import CocoData
from detector.evaluation.detections import Detections

IOUS = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # square pixels
MOST = 100  # detections of a class in an image that count, the surest
NEAR = 0.1  # pairs below this IoU are of no interest (TIDE's t_b)
CHUNK = 1 << 21  # pairs at a time


@dataclass
class Pairs:
    """p pairs of a detection and an object (of any class) of one image that overlap by NEAR or more."""

    detections: np.ndarray  # (p,) int64, ascending
    objects: np.ndarray  # (p,) int64, index into the data's boxes
    iou: np.ndarray  # (p,) float64; with a crowd, intersection over the detection's area


@dataclass
class Matching:
    """n detections against the B objects of a dataset, at A = 4 AREAS and T = 10 IOUS.

    Only candidates can find anything: the C detections among the first MOST of their image and class that overlap an
    object of their class by 0.5 or more. All others are false positives (in the size range that they are of).
    """

    data: CocoData
    detections: Detections
    pairs: Pairs
    rank: np.ndarray  # (n,) int64: place by score among the detections of the same image and class
    candidates: np.ndarray  # (C,) int64 index of detections, ascending
    objects: np.ndarray  # (A, T, C) int32: the object that each finds, or -1
    left_out: np.ndarray  # (A, B) bool: objects that do not count, crowds and those of other sizes
    object_of: np.ndarray = field(init=False)  # (n,) int64: the counting object that a detection finds at 0.5, or -1
    ignored: np.ndarray = field(init=False)  # (n,) bool: neither right nor wrong at 0.5: of a crowd, or beyond MOST
    found_by: np.ndarray = field(init=False)  # (B,) int64: the detection that finds each object at 0.5, or -1

    def __post_init__(self) -> None:
        at_half = self.objects[0, 0].astype(np.int64)
        of_crowd = (at_half >= 0) & self.left_out[0, at_half]
        self.object_of = np.full(len(self.detections.scores), -1)
        self.object_of[self.candidates] = np.where(of_crowd, -1, at_half)
        self.ignored = self.rank >= MOST
        self.ignored[self.candidates[of_crowd]] = True
        self.found_by = np.full(len(self.data.boxes), -1)
        finders = np.flatnonzero(self.object_of >= 0)
        self.found_by[self.object_of[finders]] = finders


def match(detections: Detections, data: CocoData) -> Matching:
    """As pycocotools does (COCOeval.evaluateImg): in each image and class the surest detection first, each takes the
    object it overlaps most of those not taken, objects that count before those that do not; crowds are never used up.
    """
    pairs = _pairs(detections, data)
    rank = _rank(-detections.scores, detections.labels, detections.images)
    same = detections.labels[pairs.detections] == data.labels[pairs.objects]
    near = same & (pairs.iou >= IOUS[0]) & (rank[pairs.detections] < MOST)
    left_out = np.stack([data.iscrowd | (data.areas < low) | (data.areas > high) for low, high in AREAS.values()])
    candidates, owner = np.unique(pairs.detections[near], return_inverse=True)
    # which of its image and class each candidate is: those of one round are independent
    rounds = _rank(rank[candidates], detections.labels[candidates], detections.images[candidates])
    objects = _greedy(owner, pairs.objects[near], pairs.iou[near], rounds, left_out, data)
    return Matching(data, detections, pairs, rank, candidates, objects, left_out)


def _pairs(detections: Detections, data: CocoData) -> Pairs:
    """All overlapping pairs, a part of the detections at a time."""
    counts = np.diff(data.first)[detections.images]
    ends = np.cumsum(counts)
    parts, start = [], 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + CHUNK, side="right")))
        parts.append(_pairs_of(detections, data, np.arange(start, stop), counts[start:stop]))
        start = stop
    columns = zip(*parts, strict=True) if parts else [[np.zeros(0, int)], [np.zeros(0, int)], [np.zeros(0)]]
    return Pairs(*(np.concatenate(column) for column in columns))


def _pairs_of(detections: Detections, data: CocoData, some: np.ndarray, counts: np.ndarray) -> tuple:
    """(detections, objects, iou) of the pairs of `some` detections, whose images have `counts` objects."""
    found = np.repeat(some, counts)
    within = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
    objects = np.repeat(data.first[detections.images[some]], counts) + within
    iou = _iou(detections.xywh()[found], data.boxes[objects], data.iscrowd[objects])
    near = iou >= NEAR
    return found[near], objects[near], iou[near]


def _iou(found: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(p,) IoU of boxes (p, 4) xywh, float64, with the operations in the order of pycocotools' bbIou."""
    fx, fy, fw, fh = found.T
    ox, oy, ow, oh = objects.T
    width = np.minimum(fx + fw, ox + ow) - np.maximum(fx, ox)
    height = np.minimum(fy + fh, oy + oh) - np.maximum(fy, oy)
    overlap = np.where((width > 0) & (height > 0), width * height, 0)
    area = fw * fh
    union = np.where(crowd, area, area + ow * oh - overlap)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def _rank(key: np.ndarray, labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """(n,) int64: 0, 1, 2 ... by ascending `key` among the detections of the same image and class."""
    order = np.lexsort((key, labels, images))
    count = len(order)
    starts = np.ones(count, bool)
    starts[1:] = (np.diff(images[order]) != 0) | (np.diff(labels[order]) != 0)
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count) - np.maximum.accumulate(np.where(starts, np.arange(count), 0))
    return rank


def _greedy(
    owner: np.ndarray, objects: np.ndarray, iou: np.ndarray, rounds: np.ndarray, left_out: np.ndarray, data: CocoData
) -> np.ndarray:
    """(A, T, C) int32: what each candidate takes. owner (q,): the candidate of each pair, ascending."""
    found = np.full((len(AREAS), len(IOUS), len(rounds)), -1, np.int32)
    free = np.ones((len(AREAS), len(IOUS), len(data.boxes)), bool)
    order = np.argsort(rounds[owner], kind="stable")
    ends = np.searchsorted(rounds[owner][order], np.arange(rounds.max(initial=-1) + 1), side="right")
    for turn in np.split(order, ends[:-1]) if len(ends) else []:
        finders, first = np.unique(owner[turn], return_index=True)
        taken = _best(objects[turn], iou[turn], first, free, left_out)
        found[:, :, finders] = taken
        a, t, c = np.nonzero(taken >= 0)
        free[a, t, taken[a, t, c]] = data.iscrowd[taken[a, t, c]]
    return found


def _best(objects: np.ndarray, iou: np.ndarray, first: np.ndarray, free: np.ndarray, left_out: np.ndarray):
    """(A, T, c) int64: what each of c detections takes of its free objects, or -1; `first`: where its pairs begin.

    Of equal overlaps the last object, as in pycocotools.
    """
    of = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(iou))))
    possible = free[:, :, objects] & (iou >= IOUS[:, None])
    counting = possible & ~left_out[:, None, objects]
    eligible = np.where(np.logical_or.reduceat(counting, first, axis=2)[:, :, of], counting, possible)
    overlap = np.where(eligible, iou, -1)
    best = np.maximum.reduceat(overlap, first, axis=2)
    is_best = eligible & (overlap == best[:, :, of])
    place = np.maximum.reduceat(np.where(is_best, np.arange(len(iou)), -1), first, axis=2)
    return np.where(place >= 0, objects[place], -1)
