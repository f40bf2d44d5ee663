"""Boxes of one image that are nearly the same: an object annotated twice, or as two classes."""

from __future__ import annotations

import numpy as np

from detector.doctor.finding import Example, Finding, found
from detector.doctor.table import Table

SAME = 0.95  # IoU from which two boxes are taken for one
FURTHEST = 500  # neighbours that a box is compared with, until there are ENOUGH pairs: files of equal boxes must end
ENOUGH = 1_000_000


def check_duplicates(table: Table) -> list[Finding]:
    """Pairs of boxes, crowds apart, with an IoU of at least 0.95."""
    pairs = same_boxes(table)
    labels = table.columns.box_category_ids
    same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    names = dict(table.categories)

    def example(pair: np.ndarray) -> Example:
        first, second = (table.box_example(b) for b in pair)
        classes = [names.get(labels[b].item(), str(labels[b])) for b in pair]
        what = f" {classes[0]}" if classes[0] == classes[1] else f" {classes[0]} and {classes[1]}"
        text = f"{first.text} and annotation {table.columns.annotation_ids[pair[1]]}: {second.text.split(': ')[-1]}"
        return Example(text + what, first.file_name, first.boxes + second.boxes)

    return [
        *found("warning", "duplicate-box", table.split, _once(pairs[same]),
               f"pairs of boxes of one class that are nearly the same (IoU {SAME} or more): {{n}}",
               "one object is counted twice, and one of the two can never be found; --fix keeps the first", example),
        *found("warning", "two-classes", table.split, pairs[~same],
               f"pairs of boxes of different classes that are nearly the same (IoU {SAME} or more): {{n}}",
               "one object cannot be both: decide which class it is", example),
    ]  # fmt: skip


def same_boxes(table: Table) -> np.ndarray:
    """(P,2) int64: pairs of annotations, the earlier first, whose boxes have an IoU of at least SAME.

    A left or top edge of the same box differs by less than 0.06 of its width or height: sorted by image and by a mix of
    both edges (boxes in rows or columns, which share one of them, lie apart in it), a box has few to be compared with.
    """
    x, y, w, h = table.columns.boxes.T
    usable = (np.abs(table.columns.boxes) < 1e9).all(axis=1) & (w > 0) & (h > 0) & (table.image >= 0)
    order = np.flatnonzero(usable & ~table.columns.iscrowd)
    with np.errstate(over="ignore"):
        edge, reach = x + 1.618 * y, 0.06 * (w + 1.618 * h)
    order = order[np.lexsort((edge[order], table.image[order]))]
    image, edge, reach = table.image[order], edge[order], reach[order]
    here = np.arange(len(order))
    pairs = [np.zeros((0, 2), np.int64)]
    for step in range(1, FURTHEST + 1):
        here = here[here + step < len(order)]
        near = (image[here + step] == image[here]) & (edge[here + step] - edge[here] <= reach[here])
        here = here[near]
        if len(here) == 0 or sum(map(len, pairs)) > ENOUGH:
            break
        pair = np.sort(np.stack((order[here], order[here + step]), axis=1), axis=1)
        pairs.append(pair[_iou(table.columns.boxes[pair[:, 0]], table.columns.boxes[pair[:, 1]]) >= SAME])
    pairs = np.concatenate(pairs)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _once(pairs: np.ndarray) -> np.ndarray:
    """Of three equal boxes, two are too many, not three pairs: one pair for each that is not the first."""
    _, first = np.unique(pairs[:, 1], return_index=True)
    return pairs[np.sort(first)]


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(P,) IoU of boxes (P,4) xywh, one with one."""
    low = np.maximum(a[:, :2], b[:, :2])
    with np.errstate(over="ignore", invalid="ignore"):
        high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
        common = np.clip(high - low, 0, None).prod(axis=1)
        return common / (a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - common)
