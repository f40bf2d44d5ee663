"""Checks of a split's image files: they exist, can be read, and have the size that the annotation file states."""

from __future__ import annotations

import os
from pathlib import Path

from detector.data.checks.finding import Example, Finding, Severity, found
from detector.data.checks.table import Table
from detector.data.coco import nearest_image
from detector.data.image import list_folders
from detector.data.image_files import ImageFile, files_exist, inspect_all
from detector.utils.untrusted.file_names import stays_inside


def check_images(table: Table, folder: Path) -> tuple[list[Finding], dict[int, ImageFile]]:
    """Findings on the image files below `folder`; and image of the table → its file, for files that exist."""
    total = len(table.columns.image_ids)
    names = [table.file_name(i) for i in range(total)]
    outside = [i for i in range(total) if not stays_inside(names[i])]
    existing = [i for i, exists in enumerate(files_exist(folder, names)) if exists]
    missing = sorted(set(range(total)) - set(outside) - set(existing))
    look = f"they were looked for below {folder}: correct `images:` of the descriptor or the file names"
    files = dict(zip(existing, inspect_all([folder / names[i] for i in existing], table.split), strict=True))

    def nearest(i: int) -> str:
        listing = list_folders(folder, [names[i]])[os.path.dirname(names[i])] or list_folders(folder, [""])[""]
        return f"{table.image_text(i)}: {nearest_image(os.path.basename(names[i]), listing)}"

    return [
        *found("error", "leaves-folder", table.split, outside,
               f"{{n}} of {total} file names {{is|are}} empty, absolute, or {{leaves|leave}} their folder by `..`",
               f"write names relative to {folder}; --fix does so where it finds the file, and drops the other images",
               table.image_text),
        *found("error", "missing-file", table.split, missing, f"{{n}} of {total} image files {{does|do}} not exist",
               f"{look}, or drop these images with --fix" if existing else look, nearest),
        *_unreadable(table, files),
        *_other_sizes(table, files),
        *_turned_by_exif(table, files),
    ], files  # fmt: skip


def _unreadable(table: Table, files: dict[int, ImageFile]) -> list[Finding]:
    texts = {
        "zero-bytes": "{is|are} empty (zero bytes)",
        "truncated-image": "{is|are} cut short",
        "unreadable-image": "cannot be read",
    }
    return [
        finding
        for check, text in texts.items()
        for finding in found(
            "error", check, table.split, [i for i, file in files.items() if file.problem_check == check],
            f"{{n}} of {len(files)} image files {text}",
            "copy them again from their source, or drop them with --fix",
            lambda i: f"{table.image_text(i)}: {files[i].problem}",
        )
    ]  # fmt: skip


def _other_sizes(table: Table, files: dict[int, ImageFile]) -> list[Finding]:
    """Images whose size `read_image` refuses."""
    wrong = [i for i, file in files.items() if file.stored and not file.has_size(table.stated_size(i))]

    def example(i: int) -> Example:
        (h, w), upright = table.stated_size(i), files[i].upright
        assert upright is not None
        text = f"{table.image_text(i)}: is {upright[1]}x{upright[0]}, stated {w}x{h} (width x height)"
        return Example(text, table.file_name(i))

    return found(
        "error", "another-size", table.split, wrong,
        f"{{n}} of {len(files)} images {{has|have}} another size than the annotation file states",
        "if they were resized after annotation, their boxes are wrong too; --fix exchanges width and height where that "
        "is all, and drops the other images", example,
    )  # fmt: skip


def _turned_by_exif(table: Table, files: dict[int, ImageFile]) -> list[Finding]:
    """Images that EXIF turns, by whether the stated size is that before or after; `read_image` follows it."""
    cases: dict[str, list[int]] = {"exif-stored": [], "exif-upright": [], "exif-unclear": []}
    for i, file in files.items():
        if file.orientation == 1 or not file.has_size(stated := table.stated_size(i)):
            continue
        if file.stored == file.upright:
            cases["exif-unclear"].append(i)
        else:
            cases["exif-upright" if stated == file.upright else "exif-stored"].append(i)
    texts: dict[str, tuple[Severity, str, str]] = {
        "exif-stored": ("note", "their stated size is that before turning",
                        "nothing: training does not turn them, so their boxes fit"),
        "exif-upright": ("note", "their stated size is that after turning",
                         "nothing: training turns them upright, so their boxes fit"),
        "exif-unclear": ("warning", "their size is the same before and after",
                         "training turns them upright: check that their boxes fit, since some annotation tools do not"),
    }  # fmt: skip
    return [
        finding
        for check, (severity, which, advice) in texts.items()
        for finding in found(
            severity, check, table.split, cases[check], f"EXIF turns {{n}} of {len(files)} images; {which}", advice,
            lambda i: Example(f"{table.image_text(i)}: orientation {files[i].orientation}", table.file_name(i)),
        )
    ]  # fmt: skip
