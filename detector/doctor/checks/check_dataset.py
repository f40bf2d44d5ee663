"""All checks on all splits of a dataset: is it sound?"""

from __future__ import annotations

from pathlib import Path

from detector.data.descriptor import Descriptor, Split, load_descriptor
from detector.doctor.checks.annotations import check_annotations
from detector.doctor.checks.duplicate_images import check_duplicate_images
from detector.doctor.checks.images import check_images
from detector.doctor.checks.splits import compare_categories, compare_file_names
from detector.doctor.finding import SEVERITIES, Finding, found
from detector.doctor.image_files import ImageFile, files_exist
from detector.doctor.table import Table, read_table


def descriptor_of(path: str | Path) -> Descriptor:
    """The descriptor at `path`; or, for an annotation file (*.json), one with it as `train`, its images beside it.

    Raises InputError as `load_descriptor` does.
    """
    path = Path(path)
    if path.suffix.lower() == ".json" and path.is_file():
        return Descriptor(path, None, {"train": Split(path.parent, path)})
    return load_descriptor(path)


def is_annotation_file(descriptor: Descriptor) -> bool:
    """Whether `descriptor_of` made it for an annotation file, without a descriptor of the user's."""
    return descriptor.path in [split.annotations for split in descriptor.splits.values()]


def check_dataset(descriptor: Descriptor, *, images: bool = True) -> list[Finding]:
    """All findings, the most severe first. Raises nothing, whatever the files contain.

    images: whether to read the image files too.
    """
    findings: list[Finding] = []
    tables: dict[str, Table] = {}
    files: dict[str, dict[int, ImageFile]] = {}
    for name, split in descriptor.splits.items():
        table, more = read_table(split.annotations, name)
        findings += more
        if table is None:
            continue
        tables[name] = table
        findings += check_annotations(table, descriptor.classes)
        if images:
            absent = _no_images(descriptor, table, split)
            findings += absent
            if not absent:
                more, files[name] = check_images(table, split.images)
                findings += more
    findings += _missing_splits(descriptor)
    findings += compare_categories(tables, descriptor.classes)
    findings += compare_file_names({name: tables[name] for name in tables if name not in files}, descriptor.splits)
    findings += check_duplicate_images(tables, files)
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _missing_splits(descriptor: Descriptor) -> list[Finding]:
    """A descriptor must name train and val; an annotation file alone need not have them."""
    if is_annotation_file(descriptor):
        return []
    missing = [name for name in ("train", "val") if name not in descriptor.splits]
    message = f"{descriptor.path} does not name {' and '.join(missing)}"
    advice = "name both: training needs images to learn from, and others to choose the best weights on"
    return found("error", "no-split", " and ".join(missing), missing, message, advice, None)


def _no_images(descriptor: Descriptor, table: Table, split: Split) -> list[Finding]:
    """One finding if there are no images at all, instead of one for each image."""
    if not split.images.is_dir():
        message = f"there is no folder {split.images}; only the annotations were checked"
        advice = "correct `images:` of the descriptor, or check again on a machine that has the images"
        return found("error", "no-image-folder", table.split, [split], message, advice, None)
    if not is_annotation_file(descriptor):
        return []
    names = [table.file_name(i) for i in range(len(table.columns.image_ids))]
    if any(files_exist(split.images, names)):
        return []
    message = f"no image of {table.split} is in {split.images}; only the annotations were checked"
    advice = "give a dataset descriptor (YAML) that names the folder of the images, to check them too"
    return found("note", "no-image-folder", table.split, [split], message, advice, None)
