"""What the annotation files of two splits say of each other: their classes, and images that are in both."""

from __future__ import annotations

from detector.data.descriptor import Split
from detector.doctor.annotations import classes_without
from detector.doctor.finding import Finding, found
from detector.doctor.lenient import Table
from detector.utils.names import shortened
from detector.utils.nearest import did_you_mean


def compare_splits(tables: dict[str, Table], splits: dict[str, Split], kept: list[str] | None) -> list[Finding]:
    """Findings on train with val, train with test, and val with test; kept: the classes trained, None = train's."""
    names = list(tables)
    findings = []
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            findings += _same_files(tables[first], tables[second], splits)
            if first == "train" and tables[first].all_categories and tables[second].all_categories:
                findings += _categories(tables[first], tables[second], kept)
    return findings


def _categories(train: Table, other: Table, kept: list[str] | None) -> list[Finding]:
    both = f"{train.split} and {other.split}"
    ids, other_ids = ({name: id_ for id_, name in table.categories} for table in (train, other))
    wanted = [name for name in ids if kept is None or name in kept]
    absent = [name for name in wanted if name not in other_ids]
    extra = [name for name in other_ids if name not in ids]
    moved = [name for name in wanted if other_ids.get(name, ids[name]) != ids[name]]
    unlearnt = set(classes_without(train))
    untrained = [name for name in other_ids if name in unlearnt and name not in classes_without(other)]
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


def _same_files(first: Table, second: Table, splits: dict[str, Split]) -> list[Finding]:
    """Images that both splits read from the same folder."""
    if splits[first.split].images.resolve() != splits[second.split].images.resolve():
        return []
    names = {second.name(i) for i in range(len(second.columns.image_ids))}
    shared = [i for i in range(len(first.columns.image_ids)) if first.name(i) in names]
    return found(
        "warning", "file-in-both", f"{first.split} and {second.split}", shared,
        f"image files that are in {first.split} and in {second.split}: {{n}}", LEAK, first.image_example,
    )  # fmt: skip


LEAK = (
    "figures on images that were trained on say nothing of new ones: keep each in one split only, "
    "with all pictures of the same scene"
)
