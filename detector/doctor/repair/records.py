"""Repairs records of wrong types: reads numbers written as text, takes sizes from image files, drops the rest."""

from __future__ import annotations

import msgspec

from detector.data.checks.table import record_name
from detector.data.coco_file import AnnotationRecord, CategoryRecord, ImageRecord, id_of, sentence
from detector.data.descriptor import Split
from detector.data.image_files import inspect
from detector.utils.text import quoted
from detector.utils.untrusted.file_names import stays_inside

OPTIONAL = ("id", "area", "iscrowd")  # an annotation is usable without them
LISTS = {  # name of a record, and its type
    "images": ("image", ImageRecord),
    "categories": ("category", CategoryRecord),
    "annotations": ("annotation", AnnotationRecord),
}


def fix_records(tree: dict, split: Split, changes: list[str]) -> None:
    """Repair or drop, in place, every record that does not have the types of COCO."""
    for kind, (noun, struct) in LISTS.items():
        kept = []
        for position, record in enumerate(tree[kind]):
            name = f"{noun} {record_name(id_of(record), position)}"
            if _fix(record, struct, split, name, changes):
                kept.append(record)
        tree[kind] = kept


def _fix(record: object, struct: type, split: Split, name: str, changes: list[str]) -> bool:
    """Repair a record in place, one problem a round. Returns whether it is usable then."""
    for _ in range(len(OPTIONAL) + 2):
        try:
            msgspec.convert(record, struct)
            return True
        except (msgspec.ValidationError, UnicodeError) as problem:
            wrong = sentence(problem)
        if not isinstance(record, dict) or not (
            _read_numbers(record, struct, name, changes)
            or (struct is AnnotationRecord and _remove_optional(record, wrong, name, changes))
            or (struct is ImageRecord and _take_size_from_file(record, split, name, changes))
        ):
            break
    changes.append(f"{name}: dropped: {wrong}")
    return False


def _read_numbers(record: dict, struct: type, name: str, changes: list[str]) -> bool:
    """Turn text that is a number into the number, and 7.0 into 7. Returns whether the record is usable then."""
    try:
        row = msgspec.to_builtins(msgspec.convert(record, struct, strict=False))
    except (msgspec.ValidationError, UnicodeError):
        return False
    for key, value in row.items():
        value = list(value) if isinstance(value, tuple) else value
        if key in record and (record[key] != value or (isinstance(value, int) and isinstance(record[key], float))):
            changes.append(f"{name}: {key} {record[key]!r} read as {value!r}")
            record[key] = value
    return True


def _remove_optional(record: dict, wrong: str, name: str, changes: list[str]) -> bool:
    """Remove the field that `wrong` is about, if it is OPTIONAL. Returns whether it was removed."""
    key = wrong.split(":")[0]
    if key not in OPTIONAL:
        return False
    changes.append(f"{name}: {key} {quoted(record.pop(key))} removed: {wrong}")
    return True


def _take_size_from_file(record: dict, split: Split, name: str, changes: list[str]) -> bool:
    """Set the image's size to that of its file. Returns whether that changed anything."""
    file_name = record.get("file_name")
    if not isinstance(file_name, str) or not stays_inside(file_name):
        return False
    upright = inspect(split.images / file_name).upright
    if upright is None or (record.get("height"), record.get("width")) == upright:
        return False
    record["height"], record["width"] = upright
    changes.append(f"{name}: size set to that of {file_name}, {upright[1]}x{upright[0]}")
    return True
