"""Checks of single boxes: their numbers, their place in the image, and the format they are written in."""

from __future__ import annotations

from functools import partial

import numpy as np

from detector.data.checks.finding import Example, Finding, found
from detector.data.checks.table import Table
from detector.ops.box_arrays import clipped_xyxy

ROUNDING = 0.01  # pixels: a box that sticks out by no more does not count
ENOUGH = 10  # boxes: fewer do not tell which format they are written in
BAD_BOXES = {  # checks of boxes that data.bad_annotations=drop leaves out of a training, and what each finds
    "not-finite": "with NaN or Infinity",
    "negative-size": "of negative width or height",
    "zero-size": "of zero width or height",
    "outside": "outside their image",
}
OTHER_FORMATS = {  # what is evident of all boxes of a file, and what they are then
    "normalised": "that are fractions of the image's sides, not pixels",
    "xyxy-as-xywh": "that are corners where COCO has width and height",
}
UNUSABLE = BAD_BOXES | OTHER_FORMATS  # checks of boxes that training and evaluation refuse


def check_boxes(table: Table) -> list[Finding]:
    """Findings on the boxes whose image is known."""
    known = table.select(table.image >= 0)
    return [*_format(known), *_bad(known), *_sticking_out(known), *_tiny(known), *_areas(known), *_no_iscrowd(known)]


def unusable_boxes(table: Table) -> dict[str, np.ndarray]:
    """Check of BAD_BOXES or OTHER_FORMATS → (B,) bool: the boxes that `read_coco` refuses, each under one check.

    In a file of another format all boxes are unusable. The image of every box must be known.
    """
    other = other_format(table)
    return {other: np.ones(len(table.image), bool)} if other else bad_boxes(table)


def bad_boxes(table: Table) -> dict[str, np.ndarray]:
    """Check of BAD_BOXES → (B,) bool, each box under one check at most. The image of every box must be known."""
    boxes = table.columns.boxes
    bad = ~good_boxes(table)
    finite = np.isfinite(boxes).all(axis=1)
    negative = (boxes[:, 2:] < 0).any(axis=1)
    empty = (boxes[:, 2:] == 0).any(axis=1)
    outside = _outside(table)
    return {
        "not-finite": bad & ~finite,
        "negative-size": bad & finite & negative,
        "zero-size": bad & finite & ~negative & (empty | ~outside),  # or so thin that it has no size in float32
        "outside": bad & finite & ~negative & ~empty & outside,
    }


def good_boxes(table: Table) -> np.ndarray:
    """(B,) bool: which boxes are finite and have an area inside their image after rounding to float32, as in training.

    The image of every box must be known.
    """
    width, height = _image_sides(table)
    with np.errstate(invalid="ignore", over="ignore"):
        xyxy = clipped_xyxy(table.columns.boxes, height, width)
        inside = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    return inside & np.isfinite(table.columns.boxes).all(axis=1)


def other_format(table: Table) -> str | None:
    """The check of OTHER_FORMATS that tells what the boxes are, if they evidently are not [x, y, w, h] in pixels."""
    if are_normalised(table):
        return "normalised"
    return "xyxy-as-xywh" if xyxy_evidence(table)[0] else None


def overhang(table: Table) -> np.ndarray:
    """(B,) float64 pixels by which a box sticks out of its image, which must be known; 0 for boxes not finite."""
    x, y, w, h = table.columns.boxes.T
    width, height = _image_sides(table)
    with np.errstate(invalid="ignore", over="ignore"):
        out = np.max([-x, -y, x + w - width, y + h - height], axis=0)
    return np.where(np.isfinite(out), np.maximum(out, 0), 0)


def xyxy_evidence(table: Table) -> tuple[bool, bool]:
    """Whether the boxes are evidently x1, y1, x2, y2 written where x, y, w, h belong; and whether none contradicts it.

    Random corners, read as x, y, w, h, leave the image in three cases of four. Sound boxes do not, and only those near
    the top left corner have w > x and h > y.
    """
    finite = np.isfinite(table.columns.boxes).all(axis=1)
    boxes = table.columns.boxes[finite]
    if len(boxes) < ENOUGH:
        return False, False
    width, height = (side[finite] for side in _image_sides(table))
    x, y, w, h = boxes.T
    corners = (x >= -1) & (y >= -1) & (w > x) & (h > y) & (w <= width + 1) & (h <= height + 1)
    with np.errstate(over="ignore"):
        out = (x + w > 1.02 * width + 1) | (y + h > 1.02 * height + 1)
    evident = corners.mean() >= 0.99 and out.mean() >= 0.2
    return bool(evident), bool(evident and corners.all())


def are_normalised(table: Table) -> bool:
    """Whether the boxes are evidently fractions of the image's sides instead of pixels."""
    boxes = table.columns.boxes[np.isfinite(table.columns.boxes).all(axis=1)]
    if len(boxes) < 3 or np.min(_image_sides(table)) < 16:
        return False
    in_unit = ((boxes > -0.1) & (boxes < 1.1)).all(axis=1)  # rounding, or a box that sticks out, changes nothing
    return bool(in_unit.mean() >= 0.99 and ((boxes % 1) != 0).any())


def wrong_areas(table: Table) -> np.ndarray:
    """(B,) bool: sound boxes, crowds left out, whose stated area is not above 0, or larger than the box.

    An area of (w + 1) (h + 1) passes: some tools count the pixels of both edges.
    """
    w, h = table.columns.boxes[:, 2:].T
    areas = table.columns.areas
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = (areas <= 0) | (areas > 1.01 * (w + 1) * (h + 1))
    return wrong & np.isfinite(areas) & (w > 0) & (h > 0) & ~table.columns.iscrowd


def _format(table: Table) -> list[Finding]:
    total, other = len(table.image), other_format(table)
    if other == "normalised":
        return found(
            "error", other, table.split, np.arange(total),
            f"{total} boxes lie between 0 and 1: fractions of the image's sides, not pixels",
            "multiply x and w by the image's width, y and h by its height; in YOLO's format x and y are the centre, in "
            "COCO's the top left corner",
            table.box_example,
        )  # fmt: skip
    if other == "xyxy-as-xywh":
        unanimous = xyxy_evidence(table)[1]
        how = (
            "; tools/doctor.py --fix does so" if unanimous else " where they are corners: look at those that cannot be"
        )
        return found(
            "error", other, table.split, np.flatnonzero(overhang(table) > 1),
            f"{{n}} of {total} boxes {{leaves|leave}} their image when read as [x, y, w, h], and none when read as "
            "[x1, y1, x2, y2]: the file has corners where COCO has width and height",
            f"write [x1, y1, x2 - x1, y2 - y1]{how}",
            table.box_example,
        )  # fmt: skip
    return []


def _bad(table: Table) -> list[Finding]:
    advice = "correct them, drop them with tools/doctor.py --fix, or leave them out with data.bad_annotations=drop"
    return [
        finding
        for check, which in bad_boxes(table).items()
        for finding in found(
            "error", check, table.split, np.flatnonzero(which),
            f"boxes {BAD_BOXES[check]}: {{n}} of {len(which)}", advice,
            partial(_example_with_size, table) if check == "outside" else table.box_example,
        )
    ]  # fmt: skip


def _sticking_out(table: Table) -> list[Finding]:
    if xyxy_evidence(table)[0]:
        return []
    out = np.where(good_boxes(table), overhang(table), 0)
    total = len(table.image)
    far = np.flatnonzero(out > 1 + ROUNDING)
    slightly = np.flatnonzero((out > ROUNDING) & (out <= 1 + ROUNDING))
    return [
        *found("warning", "sticks-out", table.split, far,
               f"{{n}} of {total} boxes {{sticks|stick}} out of their image, by up to {out.max(initial=0):.6g} pixels",
               "check that these boxes belong to these images, then clip them with --fix; training clips them too",
               lambda b: _example_with_size(table, b)),
        *found("note", "sticks-out-slightly", table.split, slightly,
               f"{{n}} of {total} boxes {{sticks|stick}} out of their image by a pixel or less",
               "nothing: training clips them",
               lambda b: _example_with_size(table, b)),
    ]  # fmt: skip


def _tiny(table: Table) -> list[Finding]:
    if are_normalised(table):
        return []
    sides = table.columns.boxes[:, 2:].min(axis=1, initial=np.inf)
    cases = np.flatnonzero(good_boxes(table) & (sides < 1))
    return found(
        "note", "tiny", table.split, cases, f"{{n}} of {len(sides)} boxes {{has|have}} a side below one pixel",
        "look at them: most are slips of the mouse, and no detector finds such an object", table.box_example,
    )  # fmt: skip


def _areas(table: Table) -> list[Finding]:
    areas, total = table.columns.areas, len(table.image)
    return [
        *found("note", "no-area", table.split, np.flatnonzero(~np.isfinite(areas)),
               f"{{n}} of {total} annotations {{has|have}} no `area`",
               "nothing: width x height is used; --fix writes it",
               table.box_example),
        *found("note", "area-contradicts", table.split, np.flatnonzero(wrong_areas(table)),
               f"{{n}} of {total} annotations {{has|have}} an `area` that is not above 0, or larger than their box",
               "write width x height with --fix: COCO's AP by size uses `area`",
               lambda b: table.box_example(b, f", area {areas[b]:g}")),
    ]  # fmt: skip


def _no_iscrowd(table: Table) -> list[Finding]:
    return found(
        "note", "no-iscrowd", table.split, np.flatnonzero(table.no_iscrowd),
        f"{{n}} of {len(table.image)} annotations {{has|have}} no `iscrowd`", "nothing: 0 is used; --fix writes it",
        table.box_example,
    )  # fmt: skip


def _outside(table: Table) -> np.ndarray:
    x, y, w, h = table.columns.boxes.T
    width, height = _image_sides(table)
    with np.errstate(invalid="ignore", over="ignore"):
        return (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)


def _image_sides(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """(B,) width and height of the image of each box."""
    return table.columns.widths[table.image], table.columns.heights[table.image]


def _example_with_size(table: Table, b: int) -> Example:
    height, width = table.stated_size(int(table.image[b]))
    return table.box_example(b, f" in {width}x{height}")
