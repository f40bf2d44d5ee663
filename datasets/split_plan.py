"""Which image goes into which split, and what is said of it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from split_files import Pool

from detector.data.descriptor import SPLITS
from detector.data.splitting import divide, gather
from detector.utils.errors import InputError
from detector.utils.text import counted

SHOWN = 5  # images named of those moved


@dataclass
class Plan:
    """The new splits."""

    names: list[str]  # P: train, then the others
    before: np.ndarray  # (I,) int64: the split each image was in, as an index in `names`
    repaired: np.ndarray  # (I,) int64: the same without groups in two splits
    parts: np.ndarray  # (I,) int64: the split each image is in now
    wanted: np.ndarray  # (P,) int64: images each should have


def plan_splits(pool: Pool, groups: np.ndarray, sizes: dict[str, float], anew: bool, seed: int) -> Plan:
    """Repair the splits that there are, and make those of `sizes` (split → fraction, or number of images) from train.

    anew: all images count as train's. Raises InputError where a split would have no image.
    """
    names = [name for name in SPLITS if name in pool.trees or name in sizes]
    before = np.array([names.index(name) for name in pool.splits], np.int64)
    repaired = np.zeros_like(before) if anew else gather(groups, before)
    parts = repaired.copy()
    own = np.flatnonzero(parts == 0)
    wanted = np.bincount(parts, minlength=len(names))
    for name, value in sizes.items():
        wanted[names.index(name)] = max(1, round(value * len(own))) if value < 1 else value
    wanted[0] = len(pool.images) - wanted[1:].sum()
    if wanted[0] < 1:
        rest = " and ".join(f"{wanted[names.index(name)]} for {name}" for name in sizes)
        raise InputError(f"{pool.descriptor.path}: of {counted(len(own), 'image')}, {rest} leave none for train")
    made = np.array([0, *(names.index(name) for name in sizes)])
    if len(made) > 1:
        _, own_groups = np.unique(groups[own], return_inverse=True)
        parts[own] = made[divide(own_groups.ravel(), pool.boxes[own], wanted[made], seed)]
    for name, images in zip(names, np.bincount(parts, minlength=len(names)), strict=True):
        if images == 0:
            largest = np.bincount(groups).max()
            raise InputError(
                f"{pool.descriptor.path}: no image is left for {name}, since groups stay whole, the largest of "
                f"{largest} of {len(groups)} images; {'make smaller groups' if name in sizes else 'try --anew'}"
            )
    return Plan(names, before, before if anew else repaired, parts, wanted)


def kept_images(pool: Pool, plan: Plan) -> np.ndarray:
    """(I,) bool: all images, but for those whose file is in their new split already, where it was listed before."""
    first: dict[tuple[int, Path], int] = {}
    for i in np.argsort(plan.before != plan.parts, kind="stable").tolist():  # what stays first
        first.setdefault((int(plan.parts[i]), pool.path(i)), i)
    place = [first[int(plan.parts[i]), pool.path(i)] for i in range(len(pool.images))]
    same_split = plan.before == plan.before[place]  # one file twice in one split is as the user had it
    return (np.array(place) == np.arange(len(place))) | same_split


def print_table(pool: Pool, plan: Plan, kept: np.ndarray) -> None:
    """Images, and boxes of each class, in all and in each split."""
    rows = [("images", kept.astype(int)), *((name, pool.boxes[:, k]) for k, name in by_boxes(pool))]
    width = max(len(name) for name, _ in rows)
    print(f"\n{'':{width}} {'all':>9}" + "".join(f" {name:>16}" for name in plan.names))
    for name, values in rows:
        shares = [int(values[kept & (plan.parts == part)].sum()) for part in range(len(plan.names))]
        total = sum(shares)
        cells = "".join(f" {value:>8} {value / max(total, 1):>7.1%}" for value in shares)
        print(f"{name:{width}} {total:>9}{cells}")
    print()


def by_boxes(pool: Pool) -> list[tuple[int, str]]:
    """Index and name of the classes, the commonest first."""
    return [(k, pool.class_names[k]) for k in np.argsort(-pool.boxes.sum(axis=0), kind="stable").tolist()]


def print_shortcomings(pool: Pool, plan: Plan, groups: np.ndarray, anew: bool) -> None:
    """What could not be done: classes that a split has nothing of, and sizes that groups do not allow."""
    for k, name in by_boxes(pool):
        has = pool.boxes[:, k] > 0
        missing = [split for part, split in enumerate(plan.names) if not has[plan.parts == part].any()]
        alone = len(np.unique(groups[has]))
        if alone == 0:
            print(f"warning: {name}: no image has an object of it")
        elif missing:
            where = "one image or group" if alone == 1 else f"{alone} images or groups"
            hope = "" if anew or alone < len(plan.names) else "; --anew would share them out"
            print(f"warning: {name}: none in {' and '.join(missing)}: all of it is in {where}{hope}")
    for part, name in enumerate(plan.names):
        images = int((plan.parts == part).sum())
        if images != plan.wanted[part]:
            print(f"{name} has {counted(images, 'image')}, not {plan.wanted[part]}: groups stay whole, the largest of "
                  f"{np.bincount(groups).max()}")  # fmt: skip


def print_moves(pool: Pool, plan: Plan, kept: np.ndarray) -> None:
    """Which images left a split because it shared their group with another, and which were listed twice."""
    moved = np.flatnonzero(kept & (plan.before != plan.repaired))
    ways = Counter((plan.names[plan.before[i]], plan.names[plan.repaired[i]]) for i in moved)
    for (old, new), images in ways.items():
        print(f"moved from {old} to {new}: {counted(images, 'image')}")
    for i in moved[:SHOWN].tolist():
        print(f"  {pool.images[i]['file_name']}, from {plan.names[plan.before[i]]} to {plan.names[plan.repaired[i]]}")
    if len(moved) > SHOWN:
        print(f"  ... and {len(moved) - SHOWN} more")
    if not kept.all():
        twice = counted(int((~kept).sum()), "image")
        print(f"listed in two splits: {twice}; each is kept once, as its new split has it")
