"""One split of a COCO-format dataset as flat arrays: read once, checked, its category ids turned into 0..K-1.

There is no Python object per image or box. Forked loader workers share the arrays with the main process: reading them
changes no reference count, so a worker needs almost no memory of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

import numpy as np

from detector.data.checks.annotations import check_annotations
from detector.data.checks.boxes import UNUSABLE, unusable_boxes
from detector.data.checks.table import table_of_columns
from detector.data.coco_file import Columns, name_at, read_columns
from detector.data.descriptor import Split
from detector.data.image import list_folders
from detector.ops.box_arrays import clipped_xyxy
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean
from detector.utils.text import counted, printable, quoted, shortened

MAX_CLASSES = 10_000  # more would need gigabytes for the scores of one image, or for a confusion matrix


class UnknownClass(InputError):
    """A class is not among the categories of an annotation file."""


@dataclass
class CocoData:
    """I images, B boxes (sorted by image, in the file's order within one), K classes."""

    class_names: list[str]  # K
    category_ids: np.ndarray  # (K,) int64, the file's own
    images_dir: Path
    image_ids: np.ndarray  # (I,) int64
    heights: np.ndarray  # (I,) int32 pixels
    widths: np.ndarray  # (I,) int32 pixels
    names: bytes  # the file names, UTF-8, one after the other
    name_offsets: np.ndarray  # (I+1,) int64
    first: np.ndarray  # (I+1,) int64: boxes of image i are first[i]:first[i + 1]
    boxes: np.ndarray  # (B,4) float64 x, y, w, h in pixels, exactly as in the file
    areas: np.ndarray  # (B,) float64, w * h where the file has none
    labels: np.ndarray  # (B,) int32 in 0..K-1
    iscrowd: np.ndarray  # (B,) bool
    annotation_ids: np.ndarray  # (B,) int64
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> number of annotations left out
    warnings: list[str] = field(default_factory=list)  # what the checks of the file (data/checks/) warn of

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    @property
    def box_images(self) -> np.ndarray:
        """(B,) int64: index of the image of each box. Computed anew at every use, so that it holds no memory."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.first))

    def file_name(self, i: int) -> str:
        """File name of image i, relative to `images_dir`."""
        return name_at(self.names, self.name_offsets, i)

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of image i in pixels, as the file states them."""
        return int(self.heights[i]), int(self.widths[i])

    def target_boxes(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The objects of image i to train on: boxes (M,4) float32 xyxy pixels, clipped to the image; labels (M,) int64.

        Crowds (`iscrowd`) are left out, as in torchvision's and detectron2's reference trainings.
        """
        own = slice(self.first[i], self.first[i + 1])
        kept = ~self.iscrowd[own]
        boxes = clipped_xyxy(self.boxes[own][kept], self.heights[i], self.widths[i])
        return boxes, self.labels[own][kept].astype(np.int64)

    def remarks(self) -> list[str]:
        """What was left out, and what the checks warn of, a line each."""
        left_out = [f"{counted(count, 'annotation')} left out: {reason}" for reason, count in self.dropped.items()]
        return left_out + [f"warning: {warning}" for warning in self.warnings]

    def class_counts(self) -> np.ndarray:
        """(K,) int64: number of objects of each class, without crowds."""
        return np.bincount(self.labels[~self.iscrowd], minlength=len(self.class_names))

    def fingerprint(self) -> str:
        """A digest of what the annotations say: classes, ids, file names, sizes, boxes. The images are not read."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        columns = (self.category_ids, self.image_ids, self.heights, self.widths, self.name_offsets, self.first)
        for column in (*columns, self.boxes, self.areas, self.labels, self.iscrowd):
            digest.update(np.ascontiguousarray(column).data)
        digest.update(self.names)
        return digest.hexdigest()

    def to_coco_api(self) -> dict:
        """The dataset in COCO's JSON layout, for pycocotools. Image and category ids are the file's own."""
        images = zip(self.image_ids.tolist(), self.heights.tolist(), self.widths.tolist(), strict=True)
        annotations = zip(
            range(1, len(self.boxes) + 1),  # not the file's: to pycocotools, id 0 means "not matched"
            self.image_ids[self.box_images].tolist(),
            self.category_ids[self.labels].tolist(),
            self.boxes.tolist(),
            self.areas.tolist(),
            self.iscrowd.astype(int).tolist(),
            strict=True,
        )
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        categories = zip(self.category_ids.tolist(), self.class_names, strict=True)
        return {
            "images": [
                {"id": id_, "file_name": self.file_name(i), "height": h, "width": w}
                for i, (id_, h, w) in enumerate(images)
            ],
            "annotations": [dict(zip(keys, row, strict=True)) for row in annotations],
            "categories": [{"id": id_, "name": name} for id_, name in categories],
        }


def read_coco(
    split: Split, class_names: list[str] | None = None, bad: Literal["error", "drop"] = "error", name: str = ""
) -> CocoData:
    """Read a split's annotation file (see `read_columns`) and check it (data/checks/).

    class_names: categories to keep, by exact name, in the order of the labels; None = all, in the order of their ids.
        Objects of other categories are left out and counted in `dropped`.
    bad: a bad box is NaN, infinite, of zero or negative size, or entirely outside its image. If all boxes are evidently
        corners or fractions instead of x, y, w, h in pixels, all are bad. `error` raises, `drop` leaves them out and
        counts them. A box that is partly outside its image is not bad; such doubts are told in `warnings`.
    name: of the split. In `train`, a class without objects is a warning.

    Raises InputError when the file is not a COCO file, an id is used twice or does not exist, a class is not in the
    file, or, with bad="error", a box is bad; with "drop", when no box is left.
    """
    path = split.annotations
    columns = read_columns(path)
    if len(columns.image_ids) == 0:
        raise InputError(f"{path}: the list of images is empty")
    names, category_ids = _select_classes(path, columns.categories, class_names)
    image = _positions(path, columns, columns.box_image_ids, columns.image_ids, "image_id")
    labels, dropped = _labels(path, columns, category_ids)
    table = table_of_columns(columns, image, name)
    findings = check_annotations(table, class_names)
    refused = [finding for finding in findings if finding.check in UNUSABLE]
    if refused and bad == "error":
        raise InputError(f"{path}: {refused[0].sentence()}")
    kept = labels >= 0
    if refused:
        dropped |= _leave_out(path, kept, unusable_boxes(table.select(kept)))
    order = np.flatnonzero(kept)
    order = order[np.argsort(image[order], kind="stable")]
    boxes, areas = columns.boxes[order], columns.areas[order]
    return CocoData(
        class_names=names,
        category_ids=category_ids,
        images_dir=split.images,
        image_ids=columns.image_ids,
        heights=columns.heights,
        widths=columns.widths,
        names=columns.names,
        name_offsets=columns.name_offsets,
        first=np.searchsorted(image[order], np.arange(len(columns.image_ids) + 1)),
        boxes=boxes,
        areas=np.where(np.isfinite(areas), areas, boxes[:, 2] * boxes[:, 3]),
        labels=labels[order],
        iscrowd=columns.iscrowd[order],
        annotation_ids=columns.annotation_ids[order],
        dropped=dropped,
        warnings=[f"{found.message} ({found.check})" for found in findings if found.severity == "warning"],
    )


def _leave_out(path: Path, kept: np.ndarray, unusable: dict[str, np.ndarray]) -> dict[str, int]:
    """Take unusable boxes out of `kept` (B,) bool, in place. Returns how many, by reason. Raises InputError if no box
    is left. unusable: see `unusable_boxes`, of the boxes that `kept` says.
    """
    counts = {f"boxes {UNUSABLE[check]}": int(which.sum()) for check, which in unusable.items() if which.any()}
    kept[kept] = ~np.any(list(unusable.values()), axis=0)
    if not kept.any():
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise InputError(f"{path}: without its bad boxes no object is left: {reasons}; correct the file")
    return counts


def check_images_exist(data: CocoData) -> None:
    """Raise InputError unless every image file exists: how many are missing, the first, and the nearest name.

    Each folder is listed once, which on network disks is much faster than a query per file.
    """
    listings = list_folders(data.images_dir, map(data.file_name, range(len(data))))
    missing = []
    for i in range(len(data)):
        folder, name = os.path.split(data.file_name(i))
        if name not in listings[folder]:
            missing.append(i)
    if missing:
        first = data.file_name(missing[0])
        folder, name = os.path.split(first)
        nearest = nearest_image(name, listings[folder] or list_folders(data.images_dir, [""])[""])
        raise InputError(
            f"{data.images_dir}: missing: {len(missing)} of the {counted(len(data), 'image')} of the annotation file, "
            f"the first is {printable(repr(first), 300)}; {nearest}"
        )


def _select_classes(
    path: Path, categories: dict[int, str], class_names: list[str] | None
) -> tuple[list[str], np.ndarray]:
    """Names and category ids of the K classes, in the order of the labels."""
    if not categories:
        raise InputError(f"{path}: the list of categories is empty")
    count = len(categories if class_names is None else class_names)
    if count > MAX_CLASSES:
        raise InputError(
            f"{path}: {count} classes are too many; choose at most {MAX_CLASSES} with `classes:` in the dataset's YAML"
        )
    if class_names is None:
        ids = sorted(categories)
        return [categories[id_] for id_ in ids], np.array(ids, np.int64)
    first: dict[str, int] = {}
    id_of = {name: id_ for id_, name in categories.items()}
    for position, name in enumerate(class_names):
        if name not in id_of:
            raise UnknownClass(f"{path}: has no category {quoted(name)}; {did_you_mean(name, id_of)}")
        if first.setdefault(name, position) != position:
            raise InputError(f"classes: {quoted(name)} is listed twice")
    return list(class_names), np.array([id_of[name] for name in class_names], np.int64)


def _labels(path: Path, columns: Columns, category_ids: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """(B,) int32 labels, -1 where the category is not among `category_ids` (K,); and how many those are, by reason."""
    known = np.array(list(columns.categories), np.int64)
    category = _positions(path, columns, columns.box_category_ids, known, "category_id")
    label_of = {id_: label for label, id_ in enumerate(category_ids.tolist())}
    labels = np.array([label_of.get(id_, -1) for id_ in known.tolist()], np.int32)[category]
    others = [name for id_, name in columns.categories.items() if id_ not in label_of]
    count = int((labels < 0).sum())
    return labels, {f"of categories not kept: {shortened(others, 5)}": count} if count else {}


def _positions(path: Path, columns: Columns, values: np.ndarray, ids: np.ndarray, key: str) -> np.ndarray:
    """(B,) int64: index in `ids` of each annotation's `values` (B,). Raises InputError naming the first unknown one."""
    order = np.argsort(ids)
    place = np.searchsorted(ids, values, sorter=order)
    positions = order[np.minimum(place, len(ids) - 1)] if len(values) else np.zeros(0, np.int64)
    unknown = np.flatnonzero(ids[positions] != values)
    if len(unknown):
        b = unknown[0]
        raise InputError(
            f"{path}: annotation {columns.annotation_ids[b]}: {key} {values[b]} is not the id of any "
            f"{'image' if key == 'image_id' else 'category'} of the file"
        )
    return positions


def nearest_image(name: str, listing: frozenset[str]) -> str:
    """A hint: names that differ only in case or ending, else the most similar with the same first letter."""
    stem = PurePath(name).stem.lower()
    same = sorted(other for other in listing if PurePath(other).stem.lower() == stem)
    # difflib needs a second for a few thousand names; a folder may hold millions
    alike = sorted(other for other in listing if other[:1] == name[:1])[:2000]
    return did_you_mean(name, same or alike or sorted(listing)[:2000], limit=3)
