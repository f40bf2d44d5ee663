"""Repairs annotations: drops bad boxes, those of nothing and duplicates; converts corners, clips, fills in fields."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detector.data.checks.annotation_lists import KINDS
from detector.data.checks.annotations import unknown_references
from detector.data.checks.boxes import ROUNDING, are_normalised, bad_boxes, overhang, wrong_areas, xyxy_evidence
from detector.data.checks.duplicate_boxes import same_boxes
from detector.data.checks.table import Table, table_of


def fix_boxes(tree: dict, path: Path, changes: list[str]) -> None:
    """Repair or drop annotations in place. The records must have the types of COCO (`fix_records`)."""
    _drop_unknown_references(tree, _table(tree, path), changes)
    _convert_corners(tree, _table(tree, path), changes)
    _drop_bad(tree, _table(tree, path), changes)
    _clip(tree, _table(tree, path), changes)
    _fill_in(tree, _table(tree, path), changes)
    _drop_duplicates(tree, _table(tree, path), changes)


def _table(tree: dict, path: Path) -> Table:
    return table_of(path, "", {kind: tree[kind] for kind in KINDS})[0]


def _drop(tree: dict, table: Table, reasons: np.ndarray, changes: list[str]) -> None:
    """Drop the annotations that have a reason. reasons: (B,) of str, empty = keep."""
    changes += [f"{table.box_text(int(b))}: dropped: {reasons[b]}" for b in np.flatnonzero(reasons != "")]
    tree["annotations"] = [record for record, why in zip(tree["annotations"], reasons, strict=True) if not why]


def _no_reasons(table: Table) -> np.ndarray:
    return np.full(len(table.image), "", object)


def _drop_unknown_references(tree: dict, table: Table, changes: list[str]) -> None:
    reasons = _no_reasons(table)
    for key, unknown in reversed(unknown_references(table).items()):  # image_id last: its reason stands if both apply
        for b in np.flatnonzero(unknown).tolist():
            reasons[b] = f"{key} {tree['annotations'][b][key]} is the id of nothing in the file"
    _drop(tree, table, reasons, changes)


def _convert_corners(tree: dict, table: Table, changes: list[str]) -> None:
    evident, unanimous = xyxy_evidence(table)
    if evident and not unanimous:
        changes.append("all boxes: left, though most are [x1, y1, x2, y2]: some cannot be, so look at them")
    if not unanimous:
        return
    finite = np.isfinite(table.columns.boxes).all(axis=1)
    for b in np.flatnonzero(finite).tolist():
        x1, y1, x2, y2 = tree["annotations"][b]["bbox"]
        tree["annotations"][b]["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        changes.append(f"{table.box_text(b)}: read as corners, changed to {tree['annotations'][b]['bbox']}")


def _drop_bad(tree: dict, table: Table, changes: list[str]) -> None:
    if are_normalised(table):
        changes.append("all boxes: left, though they are fractions of the image's sides: convert them to pixels")
    reasons = _no_reasons(table)
    for check, bad in bad_boxes(table).items():
        reasons[bad] = check
    _drop(tree, table, reasons, changes)


def _clip(tree: dict, table: Table, changes: list[str]) -> None:
    for b in np.flatnonzero(overhang(table) > ROUNDING).tolist():
        record, (height, width) = tree["annotations"][b], table.stated_size(int(table.image[b]))
        x, y, w, h = record["bbox"]
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        record["bbox"] = [left, top, right - left, bottom - top]
        if record.get("area") is not None:
            record["area"] = min(record["area"], (right - left) * (bottom - top))
        changes.append(f"{table.box_text(b)}: clipped to {record['bbox']}")


def _fill_in(tree: dict, table: Table, changes: list[str]) -> None:
    """Write width x height as `area` if it is missing or wrong, and `iscrowd` if it is missing."""
    for b in np.flatnonzero(~np.isfinite(table.columns.areas) | wrong_areas(table)).tolist():
        record = tree["annotations"][b]
        before, record["area"] = record.get("area"), record["bbox"][2] * record["bbox"][3]
        changes.append(f"{table.box_text(b)}: area {before} changed to {record['area']:g}")
    for b in np.flatnonzero(table.no_iscrowd).tolist():
        tree["annotations"][b]["iscrowd"] = 0
        changes.append(f"{table.box_text(b)}: iscrowd 0 added")


def _drop_duplicates(tree: dict, table: Table, changes: list[str]) -> None:
    labels = table.columns.box_category_ids
    reasons = _no_reasons(table)
    for first, second in same_boxes(table).tolist():
        if reasons[first] or reasons[second]:
            continue
        same = f"nearly the same as annotation {table.columns.annotation_ids[first]}"
        if labels[first] == labels[second]:
            reasons[second] = same
        else:
            changes.append(f"{table.box_text(second)}: left, though {same} of another class: decide which it is")
    _drop(tree, table, reasons, changes)
