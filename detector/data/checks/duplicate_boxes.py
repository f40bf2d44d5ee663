"""Checks for boxes of one image that are nearly the same: an object annotated twice, or as two classes."""

from __future__ import annotations

import numpy as np

from detector.data.checks.finding import Example, Finding, found
from detector.data.checks.table import Table
from detector.ops.box_arrays import iou_xywh

SAME = 0.95  # two boxes with at least this IoU are taken for the same
# Limits of the search, so that a file of a million equal boxes ends.
MAX_NEIGHBOURS = 500  # that a box is compared with
MAX_PAIRS = 1_000_000  # no further neighbours are compared beyond these


def check_duplicate_boxes(table: Table) -> list[Finding]:
    """Findings on pairs of boxes, crowds left out, with an IoU of at least SAME."""
    pairs = same_boxes(table)
    labels = table.columns.box_category_ids
    same_class = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    names = dict(table.categories)

    def example(pair: np.ndarray) -> Example:
        first, second = (table.box_example(b) for b in pair)
        classes = [names.get(labels[b].item(), str(labels[b])) for b in pair]
        what = f" {classes[0]}" if classes[0] == classes[1] else f" {classes[0]} and {classes[1]}"
        text = f"{first.text} and annotation {table.columns.annotation_ids[pair[1]]}: {second.text.split(': ')[-1]}"
        return Example(text + what, first.file_name, first.boxes + second.boxes)

    return [
        *found("warning", "duplicate-box", table.split, _one_pair_each(pairs[same_class]),
               f"two boxes of one class are nearly the same (IoU {SAME} or more): {{n}} {{time|times}}",
               "the object counts twice, and one of the two boxes can never be found; --fix keeps the first", example),
        *found("warning", "two-classes", table.split, pairs[~same_class],
               f"two boxes of different classes are nearly the same (IoU {SAME} or more): {{n}} {{time|times}}",
               "decide which class the object has, and remove the other box", example),
    ]  # fmt: skip


def same_boxes(table: Table) -> np.ndarray:
    """(P,2) int64: pairs of annotations, the earlier first, whose boxes have an IoU of at least SAME.

    The left or top edges of such a pair differ by less than 0.06 of the width or height. So boxes are sorted by image
    and by a mix of both edges, and each is compared only with its neighbours in that order. (Boxes in rows or columns
    share one edge; the mix keeps them apart.)
    """
    x, y, w, h = table.columns.boxes.T
    usable = (np.abs(table.columns.boxes) < 1e9).all(axis=1) & (w > 0) & (h > 0) & (table.image >= 0)
    order = np.flatnonzero(usable & ~table.columns.iscrowd)
    with np.errstate(over="ignore"):
        edge, reach = x + 1.618 * y, 0.06 * (w + 1.618 * h)
    order = order[np.lexsort((edge[order], table.image[order]))]
    image, edge, reach = table.image[order], edge[order], reach[order]
    here = np.arange(len(order))
    found_pairs = [np.zeros((0, 2), np.int64)]
    for step in range(1, MAX_NEIGHBOURS + 1):
        here = here[here + step < len(order)]
        near = (image[here + step] == image[here]) & (edge[here + step] - edge[here] <= reach[here])
        here = here[near]
        if len(here) == 0 or sum(map(len, found_pairs)) > MAX_PAIRS:
            break
        pair = np.sort(np.stack((order[here], order[here + step]), axis=1), axis=1)
        found_pairs.append(pair[iou_xywh(*table.columns.boxes[pair.T]) >= SAME])
    pairs = np.concatenate(found_pairs)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _one_pair_each(pairs: np.ndarray) -> np.ndarray:
    """One pair for each box that repeats an earlier one: of three equal boxes two pairs, not three."""
    _, first = np.unique(pairs[:, 1], return_index=True)
    return pairs[np.sort(first)]
