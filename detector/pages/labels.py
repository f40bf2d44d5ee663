"""Where the labels of boxes go in a picture: beside small objects instead of on them, and apart from each other."""

from __future__ import annotations

import numpy as np

FURTHER = 3  # rows of places above and below a box, each a label's height further away
ON_A_LABEL = 3.0  # cost of hiding a label, where hiding a box costs 1
MOST_HIDDEN = 0.5  # a label that costs more is left out
LATER = 0.001  # cost of each place that comes later in the list: of places that hide as little, the first is taken


def place_labels(labelled: np.ndarray, sizes: np.ndarray, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """(n, 4) float64 xyxy: a place inside the picture for each label; NaN for one that there is no room for.

    Greedy: the labels choose in their order. Each takes, of the places above, below, beside and in the corners of its
    box, the one that hides least: the shares of each box that it hides, plus ON_A_LABEL times the share of itself that
    lies on other labels. So a label may lie on a large box, but hardly on one that is smaller than itself. Where all
    places cost more than MOST_HIDDEN, it has none: a crowd of labels that cover each other says less than a few.

    labelled: (n, 4) boxes, xyxy pixels. sizes: (n, 2) width and height of their labels, in pixels. boxes: (m, 4), all
    that are drawn. width, height: of the picture.
    """
    placed = np.full((len(labelled), 4), np.nan)
    for i, (box, size) in enumerate(zip(labelled, sizes, strict=True)):
        places = _places_around(box, size, width, height)
        hidden = _overlaps(places, boxes) / np.maximum(1, _areas(boxes))
        on_labels = _overlaps(places, placed[:i][~np.isnan(placed[:i, 0])]) / max(1, size.prod())
        cost = hidden.sum(axis=1) + ON_A_LABEL * on_labels.sum(axis=1) + LATER * np.arange(len(places))
        if cost.min() <= MOST_HIDDEN:
            placed[i] = places[np.argmin(cost)]
    return placed


def _places_around(box: np.ndarray, size: np.ndarray, width: int, height: int) -> np.ndarray:
    """(p, 4) xyxy, the usual ones first, moved into the picture where they would leave it."""
    (x1, y1, x2, y2), (w, h) = box, size
    lefts = (x1, (x1 + x2 - w) / 2, x2 - w)
    rows = [row for k in range(FURTHER) for row in (y1 - (k + 1) * h, y2 + k * h)]
    corners = [(left, top) for left in (x1, x2 - w) for top in (y1, y2 - h)]
    beside = [(left, top) for left in (x2, x1 - w) for top in (y1, (y1 + y2 - h) / 2, y2 - h)]
    above_and_below = [(left, top) for top in rows for left in lefts]
    nearest = above_and_below[: 2 * len(lefts)]
    at = np.array([*nearest, *corners, *beside, *above_and_below[len(nearest) :]])
    at = np.clip(at, 0, np.maximum(0, (width - w, height - h)))
    return np.concatenate([at, at + size], axis=1)


def _areas(boxes: np.ndarray) -> np.ndarray:
    """(n,) of boxes (n, 4) xyxy."""
    return np.prod(np.maximum(0, boxes[:, 2:] - boxes[:, :2]), axis=1)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m): the area that each of boxes a (n, 4) shares with each of b (m, 4), xyxy."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return np.prod(np.maximum(0, sides), axis=2)
