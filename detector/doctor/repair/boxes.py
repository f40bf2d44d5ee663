"""Repair of annotations: boxes, areas, references, ids."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from detector.doctor.checks.boxes import NOISE, bad_kinds, normalised, overhang, wrong_area, xyxy_evidence
from detector.doctor.checks.duplicates import same_boxes
from detector.doctor.table import Table, table_of


def mend_boxes(tree: dict, path: Path, said: list[str]) -> None:
    """Drop annotations of nothing, convert corners, drop bad boxes, clip, fill `area` and `iscrowd`, drop doubles."""
    _drop_references(tree, said)
    _convert_corners(tree, _table(tree, path), said)
    table = _table(tree, path)
    if normalised(table):
        said.append("all boxes: left, though they are fractions of the image's sides: say which convention they follow")
    reasons = np.full(len(table.image), "", object)
    for check, which in bad_kinds(table).items():
        reasons[which] = check
    _drop(tree, table, reasons, said)
    _clip(tree, _table(tree, path), said)
    _fill(tree, _table(tree, path), said)
    _drop_doubles(tree, _table(tree, path), said)


def number_annotations(tree: dict, said: list[str]) -> None:
    """A new id for each annotation without one, or with that of an earlier one."""
    taken = {record["id"] for record in tree["annotations"] if record.get("id") is not None}
    free = (id_ for id_ in itertools.count(1) if id_ not in taken)
    given = set()
    for position, record in enumerate(tree["annotations"], 1):
        id_ = record.get("id")
        if id_ is None or id_ in given:
            record["id"] = next(free)
            what = "without an id" if id_ is None else f"{id_}, whose id is an earlier one's"
            said.append(f"annotation {what} (image {record['image_id']}, number {position}): numbered {record['id']}")
        given.add(record["id"])


def _table(tree: dict, path: Path) -> Table:
    return table_of(path, "", {kind: tree[kind] for kind in ("images", "annotations", "categories")})[0]


def _drop_references(tree: dict, said: list[str]) -> None:
    known = {key: {record["id"] for record in tree[kind]} for key, kind in
             (("image_id", "images"), ("category_id", "categories"))}  # fmt: skip
    kept = []
    for position, record in enumerate(tree["annotations"], 1):
        unknown = [key for key in known if record[key] not in known[key]]
        if unknown:
            text = record.get("id", f"number {position}")
            said.append(f"annotation {text}: dropped: {unknown[0]} {record[unknown[0]]} names nothing")
        else:
            kept.append(record)
    tree["annotations"] = kept


def _convert_corners(tree: dict, table: Table, said: list[str]) -> None:
    evident, unanimous = xyxy_evidence(table)
    if evident and not unanimous:
        said.append("all boxes: left, though most are [x1, y1, x2, y2]: some cannot be, so look at them")
    if not unanimous:
        return
    finite = np.isfinite(table.columns.boxes).all(axis=1)
    for b in np.flatnonzero(finite).tolist():
        x1, y1, x2, y2 = tree["annotations"][b]["bbox"]
        tree["annotations"][b]["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        said.append(f"{table.box_text(b)}: corners, changed to {tree['annotations'][b]['bbox']}")


def _drop(tree: dict, table: Table, reasons: np.ndarray, said: list[str]) -> None:
    """Drop the annotations that have a reason. reasons: (B,) of str."""
    said += [f"{table.box_text(b)}: dropped: {reasons[b]}" for b in np.flatnonzero(reasons != "")]
    tree["annotations"] = [record for record, why in zip(tree["annotations"], reasons, strict=True) if not why]


def _clip(tree: dict, table: Table, said: list[str]) -> None:
    columns = table.columns
    for b in np.flatnonzero(overhang(table) > NOISE).tolist():
        record, i = tree["annotations"][b], table.image[b]
        x, y, w, h = record["bbox"]
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + w, columns.widths[i].item()), min(y + h, columns.heights[i].item())
        record["bbox"] = [left, top, right - left, bottom - top]
        if record.get("area") is not None:
            record["area"] = min(record["area"], (right - left) * (bottom - top))
        said.append(f"{table.box_text(b)}: clipped to {record['bbox']}")


def _fill(tree: dict, table: Table, said: list[str]) -> None:
    wrong = wrong_area(table) & ~table.columns.iscrowd
    for b in np.flatnonzero(~np.isfinite(table.columns.areas) | wrong).tolist():
        record = tree["annotations"][b]
        before, record["area"] = record.get("area"), record["bbox"][2] * record["bbox"][3]
        said.append(f"{table.box_text(b)}: area {before} changed to {record['area']:g}")
    for b in np.flatnonzero(table.no_iscrowd).tolist():
        tree["annotations"][b]["iscrowd"] = 0
        said.append(f"{table.box_text(b)}: iscrowd 0 added")


def _drop_doubles(tree: dict, table: Table, said: list[str]) -> None:
    labels = table.columns.box_category_ids
    reasons = np.full(len(table.image), "", object)
    for first, second in same_boxes(table).tolist():
        if reasons[first] or reasons[second]:
            continue
        one = f"nearly the same as annotation {table.columns.annotation_ids[first]}"
        if labels[first] == labels[second]:
            reasons[second] = one
        else:
            said.append(f"{table.box_text(second)}: left, though {one} of another class: decide which it is")
    _drop(tree, table, reasons, said)
