"""Divides images into parts, such as train and val, or folds: groups stay whole, rare classes are dealt first.

I images, G groups, K classes, P parts.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def link(pairs: np.ndarray, count: int) -> np.ndarray:
    """(count,) int64: the group of each of `count` images, where the `pairs` (N,2) of indices belong together."""
    graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def join_groups(*groupings: np.ndarray) -> np.ndarray:
    """(I,) int64: the group of each image, from 0 on; images that share a group in any of the groupings (I,) share one.

    So if a patient's images are one group, and the near-duplicates of one of them another, all of them are together.
    """
    pairs = []
    for grouping in groupings:
        _, first, group = np.unique(grouping, return_index=True, return_inverse=True)
        pairs.append(np.stack((np.arange(len(grouping)), first[group.ravel()]), axis=1))
    return link(np.concatenate(pairs), len(groupings[0]))


def divide(groups: np.ndarray, boxes: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    """(I,) int64: the part of each image, 0..P-1. No group is in two parts, and each class is shared as `sizes` are.

    This is iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data",
    ECML PKDD 2011, algorithm 1), of groups instead of examples: the class that the fewest images left have is dealt
    first, and each of its groups goes to the part that lacks most of it; of equal ones, to that with the most room.
    Four things differ, because groups are not of one size, and a part needs every class to teach or measure it:

    - Large groups come first, since small ones can make up for them.
    - What a part lacks counts relative to its size. Else all large groups would go to the largest part, which at first
      lacks most of everything. The group counts by half, as in Webster's method of apportionment, so that neither large
      nor small parts are favoured.
    - A part that has nothing of the class comes before those that have.
    - A part with too little room for a group does not get it, unless all have.

    What a group has of a class is the mean of its images with the class, and of its boxes in units of the mean boxes of
    such an image: so images and boxes are both shared evenly. Groups without objects fill the room that is left.

    groups: (I,) int64 from 0 on. boxes: (I, K) of each class in each image. sizes: (P,) images wanted, each at least 1,
    sum I. The same arguments give the same parts.
    """
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    images = np.bincount(groups)
    amounts = _amounts(groups, boxes)
    room = sizes.astype(np.float64)
    left = amounts.sum(axis=0)  # (K,) not dealt yet
    given = np.zeros((len(sizes), len(left)))
    parts = np.full(len(images), -1)

    def put(group: int, part: int) -> None:
        parts[group] = part
        room[part] -= images[group]
        given[part] += amounts[group]
        left[:] -= amounts[group]

    while (left > 0.1).any():  # of a class that is not dealt yet at least 0.5 is left
        rarest = int(np.where(left > 0.1, left, np.inf).argmin())
        own = order[(parts[order] < 0) & (amounts[order, rarest] > 0)]
        for group in own[np.argsort(-amounts[own, rarest], kind="stable")].tolist():
            has, fits = given[:, rarest], room >= images[group]
            share = np.round((has + amounts[group, rarest] / 2) / sizes, 9)
            put(group, int(np.lexsort((-room, share, has > 0, ~fits))[0] if fits.any() else room.argmax()))
    rest = order[parts[order] < 0]
    for group in rest[np.argsort(-images[rest], kind="stable")].tolist():
        put(group, int(room.argmax()))
    return parts[groups]


def gather(groups: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(I,) int64: parts like `parts` (I,), but with no group in two of them, which as few images as possible leave.

    A group goes where most of its images are; of several such parts, to the one that has lost most images so far, and
    to the first if none has.
    """
    gathered, count = parts.copy(), int(parts.max()) + 1
    table = np.zeros((int(groups.max()) + 1, count), np.int64)
    np.add.at(table, (groups, parts), 1)
    most = table.max(axis=1)
    lost = np.zeros(count, np.int64)
    split = np.flatnonzero((table > 0).sum(axis=1) > 1)
    ties = (table[split] == most[split, None]).sum(axis=1)
    for group in split[np.argsort(ties, kind="stable")].tolist():  # ties last: they can make up for the others
        best = np.flatnonzero(table[group] == most[group])
        to = int(best[lost[best].argmax()])
        gathered[groups == group] = to
        lost += table[group]
        lost[to] -= table[group].sum()
    return gathered


def _amounts(groups: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(G, K) float64: what each group has of each class; see `divide`. A class sums up to its images."""
    has = boxes > 0
    mean = boxes.sum(axis=0) / np.maximum(has.sum(axis=0), 1)  # boxes of an image with the class
    amounts = np.zeros((int(groups.max()) + 1, boxes.shape[1]))
    np.add.at(amounts, groups, (has + boxes / np.maximum(mean, 1)) / 2)
    return amounts
