"""What can be wrong with a box by itself: its numbers, its place in the image, the format it is written in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from detector.data.coco import good_boxes
from detector.doctor.finding import Example, Finding, found
from detector.doctor.table import Table

NOISE = 0.01  # pixels: what rounding leaves
ENOUGH = 10  # boxes: of fewer, none says in which format it is written


def check_boxes(table: Table) -> list[Finding]:
    """Findings on the boxes that lie on a known image."""
    known = table.select(table.image >= 0)
    return [*_format(known), *_bad(known), *_sticking_out(known), *_tiny(known), *_areas(known), *_crowds(known)]


def bad_kinds(table: Table) -> dict[str, np.ndarray]:
    """Why boxes are unusable: check name → (B,) bool, of boxes on known images; each bad box has one reason.

    Together they are the boxes that `read_coco` refuses (`good_boxes`).
    """
    boxes = table.columns.boxes
    bad = ~good_boxes(table.columns, table.image)
    finite = np.isfinite(boxes).all(axis=1)
    negative = (boxes[:, 2:] < 0).any(axis=1)
    empty = (boxes[:, 2:] == 0).any(axis=1)
    apart = _outside(table)
    return {
        "not-finite": bad & ~finite,
        "negative-size": bad & finite & negative,
        "zero-size": bad & finite & ~negative & (empty | ~apart),  # or so thin that it has no size in float32
        "outside": bad & finite & ~negative & ~empty & apart,
    }


def overhang(table: Table) -> np.ndarray:
    """(B,) float64 pixels by which each finite box sticks out of its image, 0 for the others; image >= 0 throughout."""
    x, y, w, h = table.columns.boxes.T
    width, height = _sides(table)
    with np.errstate(invalid="ignore", over="ignore"):
        out = np.max([-x, -y, x + w - width, y + h - height], axis=0)
    return np.where(np.isfinite(out), np.maximum(out, 0), 0)


def xyxy_evidence(table: Table) -> tuple[bool, bool]:
    """Whether the boxes are evidently x1, y1, x2, y2 stored as x, y, w, h; and whether all of them agree.

    Read as corners, boxes of random place leave the image in three cases of four when taken for x, y, w, h; sound ones
    do not, and only those near the top left corner have w > x and h > y.
    """
    finite = np.isfinite(table.columns.boxes).all(axis=1)
    boxes = table.columns.boxes[finite]
    if len(boxes) < ENOUGH:
        return False, False
    width, height = (side[finite] for side in _sides(table))
    x, y, w, h = boxes.T
    corners = (x >= -1) & (y >= -1) & (w > x) & (h > y) & (w <= width + 1) & (h <= height + 1)
    with np.errstate(over="ignore"):
        out = (x + w > 1.02 * width + 1) | (y + h > 1.02 * height + 1)
    evident = corners.mean() >= 0.99 and out.mean() >= 0.2
    return bool(evident), bool(evident and corners.all())


def normalised(table: Table) -> bool:
    """Whether the boxes are evidently fractions of the image's sides instead of pixels."""
    boxes = table.columns.boxes[np.isfinite(table.columns.boxes).all(axis=1)]
    if len(boxes) < 3 or np.min(_sides(table)) < 16:
        return False
    return bool((boxes >= 0).all() and (boxes <= 1).all() and ((boxes % 1) != 0).any())


def _format(table: Table) -> list[Finding]:
    count = np.arange(len(table.image))
    if normalised(table):
        return found(
            "error", "normalised", table.split, count,
            f"all {len(count)} boxes are numbers from 0 to 1: fractions of the image's sides, not pixels",
            "multiply x and w by the image's width, y and h by its height; "
            "YOLO's x and y are the centre, COCO's the top left corner",
            table.box_example,
        )  # fmt: skip
    if xyxy_evidence(table)[0]:
        out = np.flatnonzero(overhang(table) > 1)
        share = f"{len(out)} of {len(count)} boxes leave their image when read as [x, y, w, h]"
        return found(
            "error", "xyxy-as-xywh", table.split, out,
            f"{share}, none as [x1, y1, x2, y2]: the boxes are corners where COCO has width and height",
            "store [x1, y1, x2 - x1, y2 - y1]; --fix does so where every box agrees",
            table.box_example,
        )  # fmt: skip
    return []


def _bad(table: Table) -> list[Finding]:
    messages = {
        "not-finite": "NaN or Infinity",
        "negative-size": "negative width or height",
        "zero-size": "zero width or height",
        "outside": "wholly outside the image",
    }
    advice = "correct them, drop them with --fix, or train with data.bad_annotations=drop"
    total = len(table.image)
    return [
        finding
        for check, which in bad_kinds(table).items()
        for finding in found(
            "error", check, table.split, np.flatnonzero(which), f"{{n}} of {total} boxes: {messages[check]}", advice,
            lambda b, check=check: _example_with_size(table, b) if check == "outside" else table.box_example(b),
        )
    ]  # fmt: skip


def _sticking_out(table: Table) -> list[Finding]:
    if xyxy_evidence(table)[0]:
        return []
    out = np.where(good_boxes(table.columns, table.image), overhang(table), 0)
    total = len(table.image)
    cases = np.flatnonzero(out > 1 + NOISE)
    slight = np.flatnonzero((out > NOISE) & (out <= 1 + NOISE))
    advice = "training clips them to the image; see that the boxes belong to it, then clip them with --fix"
    return [
        *found("warning", "sticks-out", table.split, cases,
               f"{{n}} of {total} boxes: stick out of their image by up to {out.max(initial=0):.6g} pixels", advice,
               lambda b: _example_with_size(table, b)),
        *found("note", "sticks-out-slightly", table.split, slight,
               f"{{n}} of {total} boxes: stick out of their image by a pixel or less", "training clips them",
               lambda b: _example_with_size(table, b)),
    ]  # fmt: skip


def _tiny(table: Table) -> list[Finding]:
    if normalised(table):
        return []
    sides = table.columns.boxes[:, 2:].min(axis=1, initial=np.inf)
    cases = np.flatnonzero(good_boxes(table.columns, table.image) & (sides < 1))
    return found(
        "note", "tiny", table.split, cases, f"{{n}} of {len(sides)} boxes: a side below one pixel",
        "look at them: no detector finds such an object, and most are slips of the mouse", table.box_example,
    )  # fmt: skip


def _areas(table: Table) -> list[Finding]:
    areas, total = table.columns.areas, len(table.image)
    missing = np.flatnonzero(~np.isfinite(areas))
    cases = np.flatnonzero(wrong_area(table) & ~table.columns.iscrowd)
    return [
        *found("note", "no-area", table.split, missing, f"{{n}} of {total} annotations: no `area`",
               "width times height is taken for it; --fix writes it", table.box_example),
        *found("note", "area-contradicts", table.split, cases,
               f"{{n}} of {total} annotations: `area` is not above 0, or larger than the box",
               "COCO's AP by size goes by `area`; --fix writes width times height", 
               lambda b: _example_with_area(table, b)),
    ]  # fmt: skip


def wrong_area(table: Table) -> np.ndarray:
    """(B,) bool: a stated area that the (sound) box cannot have; pixels counted with both edges are let pass."""
    w, h = table.columns.boxes[:, 2:].T
    areas = table.columns.areas
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = (areas <= 0) | (areas > 1.01 * (w + 1) * (h + 1))
    return wrong & np.isfinite(areas) & (w > 0) & (h > 0)


def _crowds(table: Table) -> list[Finding]:
    return found(
        "note", "no-iscrowd", table.split, np.flatnonzero(table.no_iscrowd),
        f"{{n}} of {len(table.image)} annotations: no `iscrowd`", "0 is taken for it; --fix writes it",
        table.box_example,
    )  # fmt: skip


def _outside(table: Table) -> np.ndarray:
    x, y, w, h = table.columns.boxes.T
    width, height = _sides(table)
    with np.errstate(invalid="ignore", over="ignore"):
        return (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)


def _sides(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """(B,) widths and heights of the images that the boxes are on."""
    return table.columns.widths[table.image], table.columns.heights[table.image]


def _example_with_size(table: Table, b: int) -> Example:
    width, height = (side[b] for side in _sides(table))
    return _with(table.box_example(b), f" in {width}x{height}")


def _example_with_area(table: Table, b: int) -> Example:
    return _with(table.box_example(b), f", area {table.columns.areas[b]:g}")


def _with(example: Example, more: str) -> Example:
    return replace(example, text=example.text + more)
