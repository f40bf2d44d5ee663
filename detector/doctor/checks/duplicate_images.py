"""Checks for pictures that occur twice, counted in groups of alike pictures: within a split, and in two splits."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations_with_replacement, groupby

import numpy as np

from detector.data.checks.finding import Example, Finding, found
from detector.data.checks.table import Table
from detector.data.descriptor import split_command
from detector.data.image_files import ImageFile
from detector.data.similar_images import equal_groups, nearly_all_alike, similar_groups
from detector.doctor.checks.splits import leak_advice
from detector.utils.text import counted

Place = tuple[str, int]  # split, image of its table
NEARLY = "nearly the same picture (resized, saved again, next frame)"


def check_duplicate_images(
    tables: dict[str, Table], files: dict[str, dict[int, ImageFile]], dataset: str
) -> list[Finding]:
    """Findings on pictures that occur twice, within a split and in two splits.

    files: split → image of its table → its file. dataset: what the user calls it by, for the command to run.
    """
    places = [(split, i) for split in files for i, file in files[split].items() if file.stored]
    readable = [files[split][i] for split, i in places]
    equal, similar = equal_groups(readable), similar_groups(readable)
    content = dict(zip(places, equal.tolist(), strict=True))  # places with equal bytes have the same number
    kinds = {"same-image": _members(places, equal), "near-identical": _members(places, similar)}
    one_camera = nearly_all_alike(similar)
    findings: list[Finding] = []
    for first, second in combinations_with_replacement(files, 2):
        for check, groups in kinds.items():
            near = check == "near-identical"
            own = [[place for place in group if place[0] in (first, second)] for group in groups]
            if near:
                own = [_distinct_first(group, content) for group in own if len({content[p] for p in group}) > 1]
            if first == second:
                findings += _within(tables[first], own, check, one_camera and near, dataset)
            else:
                findings += _between(tables[first], tables[second], own, check, one_camera and near, dataset)
    return findings


def _members(places: list[Place], groups: np.ndarray) -> list[list[Place]]:
    """The groups of more than one image. groups: (len(places),) int64."""
    order = np.argsort(groups, kind="stable").tolist()
    parts = ([places[k] for k in own] for _, own in groupby(order, key=lambda k: groups[k]))
    return sorted(part for part in parts if len(part) > 1)


def _distinct_first(group: list[Place], content: dict[Place, int]) -> list[Place]:
    """The group with one image of each content at its beginning, so that an example shows two that differ."""
    first = {content[place]: place for place in reversed(group)}
    return sorted(group, key=lambda place: first[content[place]] != place)


def _within(table: Table, groups: list[list[Place]], check: str, one_camera: bool, dataset: str) -> list[Finding]:
    """The finding on groups of images of one split."""
    # one file listed twice is duplicate-file-name
    groups = [group for group in groups if len({table.file_name(i) for _, i in group}) > 1]
    near = check == "near-identical"
    advice = "keep one of them, with the boxes of both: an object annotated in only one is background in the other"
    if one_camera:
        advice = _one_camera_advice(dataset)
    elif near:
        advice = f"keep each group in one split, as `{split_command(dataset)}` does; of copies {advice}"
    message = (
        f"{NEARLY if near else 'the same picture'} twice or more: {_count(groups)}, {_images(groups)} of "
        f"{len(table.columns.image_ids)} images"
    )
    return found(
        "note" if near else "warning", check, table.split, groups, message, advice,
        lambda group: _example(table, table, group), unit="group",
    )  # fmt: skip


def _between(
    first: Table, second: Table, groups: list[list[Place]], check: str, one_camera: bool, dataset: str
) -> list[Finding]:
    """The finding on groups that have images of two splits."""
    names = (first.split, second.split)
    groups = [group for group in groups if {split for split, _ in group} == set(names)]
    shares = " and ".join(
        f"{_images(groups, table.split)} of {len(table.columns.image_ids)} images of {table.split}"
        for table in (first, second)
    )
    what = NEARLY if check == "near-identical" else "the same picture"
    message = f"{what} in {first.split} and in {second.split}: {_count(groups)}, {shares}"
    advice = _one_camera_advice(dataset) if one_camera else leak_advice(dataset)
    return found(
        "warning", f"{check}-in-both", " and ".join(names), groups, message, advice,
        lambda group: _example(first, second, group), unit="group",
    )  # fmt: skip


def _one_camera_advice(dataset: str) -> str:
    return (
        "nearly all images look alike, as those of one fixed camera do, so keep whole scenes or times in one split: "
        f"`{split_command(dataset)} --anew --blocks 20` keeps 20 blocks of images whole, in the order of their "
        "names; --group-by COLUMN instead goes by a column of `images` that names the scene"
    )


def _example(first: Table, second: Table, group: list[Place]) -> Example:
    """An image of split `first` and another one of split `second`, and how many more the group has."""
    one = next(i for split, i in group if split == first.split)
    other = next(i for split, i in group if split == second.split and (split, i) != (first.split, one))
    more = f", and {len(group) - 2} more like them" if len(group) > 2 else ""
    text = f"{first.split} {first.image_text(one)} and {second.split} {second.image_text(other)}{more}"
    return Example(text, first.file_name(one), beside=(second.split, second.file_name(other)))


def _count(groups: list[list[Place]]) -> str:
    return counted(len(groups), "group")


def _images(groups: Iterable[list[Place]], split: str | None = None) -> int:
    """The images in the groups, or only those of a split."""
    return sum(split in (None, own) for group in groups for own, _ in group)
