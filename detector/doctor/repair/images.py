"""Repair of what the annotation file says of image files: names spelt otherwise, sides swapped, files of no use."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path, PureWindowsPath

from detector.data.descriptor import Split
from detector.doctor.checks.images import is_there, list_folders, look, look_at
from detector.utils.untrusted.file_names import stays_inside


def mend_files(tree: dict, split: Split, said: list[str]) -> None:
    """Correct or drop images by their files; where no file at all is there, only the annotations are repaired."""
    names = [record["file_name"] for record in tree["images"]]
    there = is_there(split.images, names)
    new_names = [
        name if ok else _other_spelling(name, record, split.images)
        for name, record, ok in zip(names, tree["images"], there, strict=True)
    ]
    if not any(new_names):
        said.append(f"no image was found in {split.images}: only the annotations were repaired")
        return
    boxes_of = defaultdict(list)
    for record in tree["annotations"]:
        boxes_of[record["image_id"]].append(record["bbox"])
    seen = look_at([split.images / name for name in new_names if name is not None], "the split")
    kept = []
    for record, name, ok in zip(tree["images"], new_names, there, strict=True):
        text = f"image {record['id']} ({record['file_name']})"
        if name is None:
            said.append(f"{text}: dropped: the file is not there")
            continue
        if not ok:
            said.append(f"{text}: file_name changed to {name}")
            record["file_name"] = name
        file = next(seen)
        if file.stored is None:
            said.append(f"{text}: dropped: the file cannot be read ({file.problem})")
        elif _fits(record, file.stored, file.upright, boxes_of[record["id"]], text, said):
            kept.append(record)
    tree["images"] = kept


def _other_spelling(name: str, record: dict, folder: Path) -> str | None:
    """The one file of the stated size whose name differs in \\ for /, in the folder or in capitals, or None."""
    parts = PureWindowsPath(name.replace("/", "\\")).parts
    candidates = ["/".join(parts), *parts[-1:]]
    for candidate in candidates:
        if not stays_inside(candidate):
            continue
        directory, base = os.path.split(candidate)
        listing = list_folders(folder, [candidate])[directory]
        alike = [base] if base in listing else [other for other in listing if other.lower() == base.lower()]
        path = os.path.join(directory, alike[0]) if len(alike) == 1 else None
        if path and (record["height"], record["width"]) in _sizes(folder / path):
            return path
    return None


def _sizes(path: Path) -> tuple:
    seen = look(path)
    return (seen.stored, seen.upright) if seen.stored else ()


def _fits(record: dict, stored: tuple, upright: tuple, boxes: list, text: str, said: list[str]) -> bool:
    """Whether the image has the stated size, perhaps after exchanging height and width."""
    stated = record["height"], record["width"]
    if stated in (stored, upright):
        return True
    size = f"{upright[1]}x{upright[0]}, stated {stated[1]}x{stated[0]}"
    if stated[::-1] == upright and all(x + w <= upright[1] + 1 and y + h <= upright[0] + 1 for x, y, w, h in boxes):
        record["height"], record["width"] = upright
        said.append(f"{text}: height and width exchanged: the file is {size}")
        return True
    said.append(f"{text}: dropped: the file is {size}, so that its boxes cannot be trusted")
    return False
