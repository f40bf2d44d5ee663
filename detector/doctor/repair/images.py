"""Repairs what the annotation file says of image files: misspelt names, exchanged sides; drops unusable images."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path, PureWindowsPath

from detector.data.descriptor import Split
from detector.data.image import list_folders
from detector.data.image_files import ImageFile, files_exist, inspect, inspect_all
from detector.utils.untrusted.file_names import stays_inside


def fix_images(tree: dict, split: Split, changes: list[str]) -> None:
    """Correct or drop, in place, images by their files. Without any file, the images stay as they are."""
    names = [record["file_name"] for record in tree["images"]]
    exist = files_exist(split.images, names)
    found_names = [
        name if exists else _find_file(record, split.images)
        for name, record, exists in zip(names, tree["images"], exist, strict=True)
    ]
    if not any(found_names):
        changes.append(f"no image was found in {split.images}: only the annotations were repaired")
        return
    boxes = defaultdict(list)
    for record in tree["annotations"]:
        boxes[record["image_id"]].append(record["bbox"])
    files = inspect_all([split.images / name for name in found_names if name is not None], "the split")
    kept = []
    for record, name in zip(tree["images"], found_names, strict=True):
        text = f"image {record['id']} ({record['file_name']})"
        if name is None:
            changes.append(f"{text}: dropped: the file does not exist")
            continue
        if name != record["file_name"]:
            changes.append(f"{text}: file_name changed to {name}")
            record["file_name"] = name
        if _fix_size(record, next(files), boxes[record["id"]], text, changes):
            kept.append(record)
    tree["images"] = kept


def _find_file(record: dict, folder: Path) -> str | None:
    """The one file of the stated size whose name differs in \\ for /, in the folder or in capitals; else None."""
    parts = PureWindowsPath(record["file_name"].replace("/", "\\")).parts
    for candidate in ["/".join(parts), *parts[-1:]]:
        if not stays_inside(candidate):
            continue
        directory, base = os.path.split(candidate)
        listing = list_folders(folder, [candidate])[directory]
        alike = [base] if base in listing else [other for other in listing if other.lower() == base.lower()]
        path = os.path.join(directory, alike[0]) if len(alike) == 1 else None
        if path and inspect(folder / path).has_size((record["height"], record["width"])):
            return path
    return None


def _fix_size(record: dict, file: ImageFile, boxes: list, text: str, changes: list[str]) -> bool:
    """Exchange the stated height and width if that makes them right, and the boxes fit. Returns whether to keep it."""
    if file.upright is None:
        changes.append(f"{text}: dropped: the file cannot be read ({file.problem})")
        return False
    stated, (height, width) = (record["height"], record["width"]), file.upright
    if file.has_size(stated):
        return True
    size = f"{width}x{height}, stated {stated[1]}x{stated[0]}"
    if stated == (width, height) and all(x + w <= width + 1 and y + h <= height + 1 for x, y, w, h in boxes):
        record["height"], record["width"] = height, width
        changes.append(f"{text}: height and width exchanged: the file is {size}")
        return True
    changes.append(f"{text}: dropped: the file is {size}, so its boxes cannot be trusted")
    return False
