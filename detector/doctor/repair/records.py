"""Repair of records: types, and ids or names that stand twice."""

from __future__ import annotations

from collections import Counter

import msgspec

from detector.data.coco_file import AnnotationRecord, CategoryRecord, ImageRecord, sentence
from detector.data.descriptor import Split
from detector.doctor.checks.images import look
from detector.utils.text import class_name_problem
from detector.utils.untrusted.file_names import stays_inside

OPTIONAL = ("id", "area", "iscrowd")  # of an annotation


def mend_records(tree: dict, split: Split, said: list[str]) -> None:
    """Read numbers that are written as text, take missing sizes from the image file, drop what cannot be mended."""
    for kind, struct in (("images", ImageRecord), ("categories", CategoryRecord), ("annotations", AnnotationRecord)):
        kept = []
        for position, record in enumerate(tree[kind], 1):
            name = f"{kind[:-1] if kind != 'categories' else 'category'} {called(record, position)}"
            if _mend(record, struct, split, name, said):
                kept.append(record)
        tree[kind] = kept


def called(record: object, position: int) -> str:
    """What to call a record: its id, or its place in the list."""
    id_ = record.get("id") if isinstance(record, dict) else None
    return f"number {position} of the list" if id_ is None else str(id_)[:80]


def _mend(record: object, struct: type, split: Split, name: str, said: list[str]) -> bool:
    """Mend a record in place, as far as that goes; whether it can be used then."""
    for _ in range(len(OPTIONAL) + 2):  # one thing mended each time
        try:
            msgspec.convert(record, struct)
            return True
        except (msgspec.ValidationError, UnicodeError) as problem:
            wrong = sentence(problem)
        if not isinstance(record, dict) or not (
            _as_numbers(record, struct, name, said)
            or (struct is AnnotationRecord and _without(record, wrong, name, said))
            or (struct is ImageRecord and _size_of_file(record, split, name, said))
        ):
            break
    said.append(f"{name}: dropped: {wrong}")
    return False


def _as_numbers(record: dict, struct: type, name: str, said: list[str]) -> bool:
    """Text that is a number, as one."""
    try:
        row = msgspec.to_builtins(msgspec.convert(record, struct, strict=False))
    except (msgspec.ValidationError, UnicodeError):
        return False
    for key, value in row.items():
        value = list(value) if isinstance(value, tuple) else value
        if key in record and record[key] != value:
            said.append(f"{name}: {key} {record[key]!r} read as {value!r}")
            record[key] = value
    return True


def _without(record: dict, wrong: str, name: str, said: list[str]) -> bool:
    """Without the field that is wrong, if COCO can do without it."""
    key = wrong.split(":")[0]
    if key not in OPTIONAL:
        return False
    said.append(f"{name}: {key} {str(record.pop(key))[:80]!r} left out: {wrong}")
    return True


def _size_of_file(record: dict, split: Split, name: str, said: list[str]) -> bool:
    file_name = record.get("file_name")
    if not isinstance(file_name, str) or not stays_inside(file_name):
        return False
    seen = look(split.images / file_name)
    if seen.stored is None or (record.get("height"), record.get("width")) == seen.upright:
        return False
    record["height"], record["width"] = seen.upright
    said.append(f"{name}: size set to that of {file_name}, {record['width']}x{record['height']}")
    return True


def join_categories(tree: dict, said: list[str]) -> None:
    """One category for each name; two names of one id are left."""
    kept: dict[str, dict] = {}
    names: dict[int, str] = {}  # of those that are kept, the first of each id
    new_id = {}
    for record in tree["categories"]:
        id_, name = record["id"], record["name"]
        if name in kept:
            new_id[id_] = kept[name]["id"]
            said.append(f"category {id_} ({name}): joined with category {new_id[id_]} of the same name")
            continue
        if names.setdefault(id_, name) != name:
            said.append(f"category {id_} ({name}): left, though {names[id_]} has this id too: give it its own")
        if wrong := class_name_problem(name):
            said.append(f"category {id_}: left, though its name {wrong}: give it another")
        kept[name] = record
    tree["categories"] = list(kept.values())
    ambiguous = {record["id"] for record in tree["categories"]}  # also the id of a category that stays
    for record in tree["annotations"]:
        id_ = record["category_id"]
        if id_ in new_id and id_ not in ambiguous:
            record["category_id"] = new_id[id_]


def join_images(tree: dict, said: list[str]) -> None:
    """One image for each id and for each file: boxes of the same file are joined, ids of several files dropped."""
    files = {}
    for record in tree["images"]:
        files.setdefault(record["id"], set()).add(record["file_name"])
    uses = Counter(record["id"] for record in tree["images"])
    kept: dict[str, dict] = {}
    new_id = {}
    for record in tree["images"]:
        id_, name = record["id"], record["file_name"]
        if len(files[id_]) > 1:
            said.append(f"image {id_} ({name}): dropped: {uses[id_]} images have this id, so its boxes are unknown")
        elif name in kept:
            first = new_id[id_] = kept[name]["id"]
            what = "stands twice, once dropped" if first == id_ else f"joined with image {first} of the same file"
            said.append(f"image {id_} ({name}): {what}")
        else:
            kept[name] = record
    tree["images"] = list(kept.values())
    for record in tree["annotations"]:
        record["image_id"] = new_id.get(record["image_id"], record["image_id"])
