"""Is the dataset sound? Every check on every split of a descriptor."""

from __future__ import annotations

from pathlib import Path

from detector.data.descriptor import Descriptor, Split, load_descriptor
from detector.doctor.checks.annotations import check_annotations
from detector.doctor.checks.images import Seen, check_images, is_there
from detector.doctor.checks.leaks import check_leaks
from detector.doctor.checks.splits import compare_splits, same_files
from detector.doctor.finding import Finding, found
from detector.doctor.table import Table, read_table

SEVERITIES = ("error", "warning", "note")


def descriptor_of(path: str | Path) -> Descriptor:
    """The descriptor of a dataset, or one for a bare annotation file (*.json): its images are looked for beside it.

    Raises InputError as `load_descriptor` does.
    """
    path = Path(path)
    if path.suffix.lower() == ".json" and path.is_file():
        return Descriptor(path, None, {"train": Split(path.parent, path)})
    return load_descriptor(path)


def examine(descriptor: Descriptor, *, files: bool = True) -> list[Finding]:
    """All findings, the most severe first; no content of any file is a reason to stop.

    files: whether to look at the image files, and whether pictures occur twice.
    """
    findings: list[Finding] = []
    tables: dict[str, Table] = {}
    seen: dict[str, dict[int, Seen]] = {}
    for name, split in descriptor.splits.items():
        table, more = read_table(split.annotations, name)
        findings += more
        if table is None:
            continue
        tables[name] = table
        findings += check_annotations(table, descriptor.classes)
        if files:
            absent = _no_images(descriptor, table, split)
            findings += absent
            if not absent:
                more, seen[name] = check_images(table, split.images)
                findings += more
    findings += _missing_splits(descriptor)
    findings += compare_splits(tables, descriptor.classes)
    findings += same_files({name: tables[name] for name in tables if name not in seen}, descriptor.splits)
    findings += check_leaks(tables, seen)
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _missing_splits(descriptor: Descriptor) -> list[Finding]:
    """train or val that a descriptor does not name; a bare annotation file need not have them."""
    if descriptor.path in [split.annotations for split in descriptor.splits.values()]:
        return []
    missing = [name for name in ("train", "val") if name not in descriptor.splits]
    advice = "a training needs both: what to learn from, and other images to choose the best weights on"
    return found(
        "error", "no-split", " and ".join(missing), missing, f"{descriptor.path} does not name them", advice, None
    )


def _no_images(descriptor: Descriptor, table: Table, split: Split) -> list[Finding]:
    """One finding where there are no images to look at, instead of one for each of them."""
    bare = descriptor.path == split.annotations
    if not split.images.is_dir():
        message = f"there is no folder {split.images}: only the annotations were checked"
        advice = "correct `images:` of the descriptor, or check again where the images are"
        return found("error", "no-image-folder", table.split, [split], message, advice, None)
    names = [table.file_name(i) for i in range(len(table.columns.image_ids))] if bare else []
    if bare and not any(is_there(split.images, names)):
        message = f"no image of {table.split} is in {split.images}: only the annotations were checked"
        return found("note", "no-image-folder", table.split, [split], message, "give a dataset descriptor (YAML) that "
                     "names the images' folder, to have them checked", None)  # fmt: skip
    return []
