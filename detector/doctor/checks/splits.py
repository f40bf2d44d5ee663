"""Checks between two splits: classes that only one has, category ids that differ, and images that both contain."""

from __future__ import annotations

from itertools import combinations

from detector.data.checks.annotations import classes_without_objects
from detector.data.checks.finding import Finding, found
from detector.data.checks.table import Table
from detector.data.descriptor import Split, split_command
from detector.utils.nearest import did_you_mean
from detector.utils.text import shortened


def leak_advice(dataset: str) -> str:
    """What to do about pictures that two splits have. dataset: what the user calls it by."""
    return (
        "keep each picture, and all pictures of the same scene, in one split only: figures on images that were trained "
        f"on say nothing about new ones; `{split_command(dataset)}` repairs it by moving as few images as possible"
    )


def compare_categories(tables: dict[str, Table], kept: list[str] | None) -> list[Finding]:
    """Findings on the categories of train and of each other split. kept: the classes to train on, None = train's."""
    train = tables.get("train")
    if train is None or not train.all_categories_usable:
        return []
    others = [table for name, table in tables.items() if name != "train" and table.all_categories_usable]
    return [finding for other in others for finding in _compare(train, other, kept)]


def _compare(train: Table, other: Table, kept: list[str] | None) -> list[Finding]:
    both = f"{train.split} and {other.split}"
    ids, other_ids = ({name: id_ for id_, name in table.categories} for table in (train, other))
    trained = [name for name in ids if kept is None or name in kept]
    extra = [name for name in other_ids if name not in ids and (kept is None or name in kept)]
    moved = [name for name in trained if other_ids.get(name, ids[name]) != ids[name]]
    empty_in_train, empty_in_other = set(classes_without_objects(train)), set(classes_without_objects(other))
    only_in_other = [
        name
        for name in other_ids
        if name in empty_in_train and name not in empty_in_other and (kept is None or name in kept)
    ]
    return [
        *found("error", "category-missing", both, [name for name in trained if name not in other_ids],
               f"{{n}} of {len(trained)} classes of {train.split} {{is|are}} not in the categories of {other.split}",
               f"if {other.split} has no object of them, `--fix OUT.json --split {other.split}` adds them as "
               f"{train.split} has them; if it names them otherwise, rename them first",
               lambda name: f"{name}: {did_you_mean(name, other_ids)}"),
        *found("warning", "category-extra", both, extra,
               f"{{n}} of {len(other_ids)} classes of {other.split} {{is|are}} not in the categories of {train.split}",
               f"check that {train.split} does not name them differently; it has {shortened(list(ids))}. Their objects "
               "are left out"),
        *found("note", "category-ids-differ", both, moved,
               f"{{n}} of {len(trained)} classes {{has|have}} another id in {other.split} than in {train.split}",
               f"nothing: classes go by name here; for other tools `--fix OUT.json --split {other.split}` gives them "
               f"the ids of {train.split}",
               lambda name: f"{name}: {ids[name]} in {train.split}, {other_ids[name]} in {other.split}"),
        *found("warning", "class-not-trained", both, only_in_other,
               f"{{n}} of {len(ids)} classes {{has|have}} objects in {other.split}, and none in {train.split}",
               "move some of their images to train; until then they cannot be found"),
    ]  # fmt: skip


def compare_file_names(tables: dict[str, Table], splits: dict[str, Split], dataset: str) -> list[Finding]:
    """Findings on file names that two splits read from one folder: for splits whose files were not inspected.

    dataset: what the user calls it by, for the command to run.
    """
    findings: list[Finding] = []
    for first, second in combinations(tables, 2):
        if splits[first].images.resolve() != splits[second].images.resolve():
            continue
        names = {tables[second].file_name(i) for i in range(len(tables[second].columns.image_ids))}
        total = len(tables[first].columns.image_ids)
        shared = [i for i in range(total) if tables[first].file_name(i) in names]
        findings += found(
            "warning", "file-in-both", f"{first} and {second}", shared,
            f"{{n}} of {total} image files of {first} {{is|are}} in {second} too", leak_advice(dataset),
            tables[first].image_example,
        )  # fmt: skip
    return findings
