"""All checks on all splits of a dataset: is it sound?"""

from __future__ import annotations

from detector.data.checks.annotations import check_annotations
from detector.data.checks.finding import SEVERITIES, Finding, found
from detector.data.checks.table import Table, read_table
from detector.data.descriptor import Descriptor, Split, is_annotation_file, split_command
from detector.data.image_files import ImageFile, files_exist
from detector.doctor.checks.duplicate_images import check_duplicate_images
from detector.doctor.checks.images import check_images
from detector.doctor.checks.splits import compare_categories, compare_file_names
from detector.utils.text import counted

FEW_IMAGES = 10  # in a split: fewer neither teach nor measure anything
TOO_FEW = "few-images"


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
    dataset, unseen = str(descriptor.path), {name: tables[name] for name in tables if name not in files}
    findings += compare_file_names(unseen, descriptor.splits, dataset)
    findings += check_duplicate_images(tables, files, dataset)
    findings += _few_images(tables)
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _missing_splits(descriptor: Descriptor) -> list[Finding]:
    """A descriptor must name train and val; an annotation file alone cannot."""
    make = f"`{split_command(descriptor.path)}` makes val from images of train"
    if is_annotation_file(descriptor):
        message = "an annotation file alone has no val, which training needs to choose the best weights on"
        return found("note", "no-split", "val", ["val"], message, f"{make}, and a descriptor of both", None)
    missing = [name for name in ("train", "val") if name not in descriptor.splits]
    message = f"{descriptor.path} does not name {' and '.join(missing)}"
    advice = "name both: training needs images to learn from, and others to choose the best weights on"
    if missing == ["val"]:
        advice = f"{advice}; {make}"
    return found("error", "no-split", " and ".join(missing), missing, message, advice, None)


def _few_images(tables: dict[str, Table]) -> list[Finding]:
    """Splits with which training starts, and of which nothing can be concluded."""
    return [
        finding
        for name, table in tables.items()
        if 0 < (count := len(table.columns.image_ids)) < FEW_IMAGES
        for finding in found(
            "warning", TOO_FEW, name, [name], f"{name} has {counted(count, 'image')}, fewer than {FEW_IMAGES}",
            "annotate more: a detector knows these few by heart" if name == "train"
            else "annotate more, or move some from train: figures on so few images are chance",
            None,
        )
    ]  # fmt: skip


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
