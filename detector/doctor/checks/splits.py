"""What the annotation files of two splits say of each other: their classes, and images that are in both."""

from __future__ import annotations

import itertools

from detector.data.descriptor import Split
from detector.doctor.checks.annotations import classes_without
from detector.doctor.finding import Finding, found
from detector.doctor.table import Table
from detector.utils.nearest import did_you_mean
from detector.utils.text import shortened

LEAK = (
    "figures on images that were trained on say nothing of new ones: keep each in one split only, "
    "with all pictures of the same scene"
)


def compare_splits(tables: dict[str, Table], kept: list[str] | None) -> list[Finding]:
    """Findings on the categories of train and of the others; kept: the classes trained, None = train's."""
    train = tables.get("train")
    others = [table for name, table in tables.items() if name != "train" and table.all_categories]
    if train is None or not train.all_categories:
        return []
    return [finding for other in others for finding in _categories(train, other, kept)]


def _categories(train: Table, other: Table, kept: list[str] | None) -> list[Finding]:
    both = f"{train.split} and {other.split}"
    ids, other_ids = ({name: id_ for id_, name in table.categories} for table in (train, other))
    wanted = [name for name in ids if kept is None or name in kept]
    absent = [name for name in wanted if name not in other_ids]
    extra = [name for name in other_ids if name not in ids and (kept is None or name in kept)]
    moved = [name for name in wanted if other_ids.get(name, ids[name]) != ids[name]]
    unlearnt, unmeasured = set(classes_without(train)), set(classes_without(other))
    untrained = [name for name in other_ids if name in unlearnt and name not in unmeasured]
    return [
        *found("error", "category-missing", both, absent,
               f"classes of {train.split} that {other.split} does not list: {{n}}",
               "give all splits the same list of categories, whether or not there are objects of each",
               lambda name: f"{name}: {did_you_mean(name, other_ids)}"),
        *found("warning", "category-extra", both, extra,
               f"classes of {other.split} that {train.split} does not list: {{n}}",
               f"their objects are left out; see that they are not named otherwise in {train.split}, which has "
               f"{shortened(list(ids))}"),
        *found("note", "category-ids-differ", both, moved, "classes whose id differs between the splits: {n}",
               "nothing to do here, where classes go by name; other tools mix them up",
               lambda name: f"{name}: {ids[name]} in {train.split}, {other_ids[name]} in {other.split}"),
        *found("warning", "class-not-trained", both, [name for name in untrained if kept is None or name in kept],
               f"classes that {other.split} has objects of, and {train.split} none: {{n}}",
               "none of them can be found: move some of their images to train"),
    ]  # fmt: skip


def same_files(tables: dict[str, Table], splits: dict[str, Split]) -> list[Finding]:
    """Images that two splits read from one folder, by name: for splits whose files were not looked at."""
    findings = []
    for first, second in itertools.combinations(tables, 2):
        if splits[first].images.resolve() != splits[second].images.resolve():
            continue
        names = {tables[second].file_name(i) for i in range(len(tables[second].columns.image_ids))}
        shared = [i for i in range(len(tables[first].columns.image_ids)) if tables[first].file_name(i) in names]
        findings += found(
            "warning", "file-in-both", f"{first} and {second}", shared,
            f"image files that are in {first} and in {second}: {{n}}", LEAK, tables[first].image_example,
        )  # fmt: skip
    return findings
