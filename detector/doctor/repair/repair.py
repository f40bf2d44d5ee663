"""A repaired copy of an annotation file, with a line for every change; nothing is guessed.

What can only be meant in one way is mended (numbers written as text, sides swapped, corners stored as width and height
where every box agrees), what cannot be used is dropped, and what only a person can decide is left and said.
"""

from __future__ import annotations

import json
from pathlib import Path

from detector.data.descriptor import Split
from detector.doctor.repair.boxes import mend_boxes, number_annotations
from detector.doctor.repair.images import mend_files
from detector.doctor.repair.records import join_categories, join_images, mend_records
from detector.doctor.table import read_lists
from detector.utils.errors import InputError
from detector.utils.text import one_line


def fix(split: Split, out: Path) -> list[str]:
    """Write a repaired copy of the split's annotation file to `out`, and the lines that are returned beside it.

    The lines, one a change or a thing left for a person, go to `<out>.changes.txt`. Keys that COCO does not have
    and all that is not named in a line are kept as they are.

    Raises InputError when the file is no COCO JSON, nothing would be left of it, or it is `out` itself.
    """
    if out.resolve() == split.annotations.resolve():
        raise InputError(f"{out}: is the file to repair; name another for the copy")
    tree, said = _load(split.annotations), []
    mend_records(tree, split, said)
    mend_files(tree, split, said)
    join_categories(tree, said)
    join_images(tree, said)
    mend_boxes(tree, split.annotations, said)
    number_annotations(tree, said)
    for kind in ("images", "categories"):
        if not tree[kind]:
            raise InputError(f"{split.annotations}: nothing would be left of its {kind}; {said[-1] if said else ''}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(tree))
    said = [one_line(line) for line in said]
    changes = out.with_name(out.name + ".changes.txt")
    changes.write_text("".join(line + "\n" for line in said), encoding="utf-8")
    return said


def _load(path: Path) -> dict:
    lists, findings = read_lists(path, "")
    if lists is None:
        raise InputError(f"{findings[0].message}; {findings[0].advice}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{path}: cannot be repaired: {problem}") from None
