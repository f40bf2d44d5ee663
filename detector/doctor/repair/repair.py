"""Writes a repaired copy of an annotation file, with a line for every change; nothing is guessed.

- What can mean only one thing is repaired: numbers written as text, exchanged width and height, corners written as
  width and height if every box agrees.
- What cannot be used is dropped.
- What only a person can decide is left as it is, with a line that says so.
"""

from __future__ import annotations

import json
from pathlib import Path

from detector.data.checks.annotation_lists import read_lists
from detector.data.descriptor import Split
from detector.doctor.repair.boxes import fix_boxes
from detector.doctor.repair.categories import match_categories
from detector.doctor.repair.images import fix_images
from detector.doctor.repair.records import fix_records
from detector.doctor.repair.repeats import join_categories, join_images, number_annotations
from detector.utils.errors import InputError
from detector.utils.text import one_line


def fix(split: Split, out: Path, categories_of: Path | None = None) -> list[str]:
    """Write a repaired copy of the split's annotation file to `out`. Returns the changes, a line each.

    The lines, which also name what is left for a person to decide, are written to `<out>.changes.txt` too. Keys that
    COCO does not have stay in the copy, and so does everything that no line names.

    categories_of: another annotation file, whose categories the copy gets (`match_categories`): for val, that of train.

    Raises InputError if the file is not COCO JSON, nothing would be left of it, or it is `out` itself.
    """
    if out.resolve() == split.annotations.resolve():
        raise InputError(f"{out}: is the file to repair; name another for the copy")
    tree = _load(split.annotations)
    changes: list[str] = []
    fix_records(tree, split, changes)
    fix_images(tree, split, changes)
    join_categories(tree, changes)
    join_images(tree, changes)
    if categories_of:
        match_categories(tree, categories_of, changes)
    fix_boxes(tree, split.annotations, changes)
    number_annotations(tree, changes)
    for kind in ("images", "categories"):
        if not tree[kind]:
            last = f"; {changes[-1]}" if changes else ""
            raise InputError(f"{split.annotations}: nothing would be left of its {kind}{last}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(tree))
    changes = [one_line(line) for line in changes]
    out.with_name(out.name + ".changes.txt").write_text("".join(f"{line}\n" for line in changes), encoding="utf-8")
    return changes


def _load(path: Path) -> dict:
    lists, findings = read_lists(path, "")
    if lists is None:
        raise InputError(f"{findings[0].message}; {findings[0].advice}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{path}: cannot be repaired: {problem}") from None
