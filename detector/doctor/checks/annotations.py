"""What the records of one split say of each other: ids that repeat or name nothing, classes and images of nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from detector.doctor.checks.boxes import check_boxes
from detector.doctor.checks.duplicates import check_duplicates
from detector.doctor.finding import Example, Finding, found
from detector.doctor.table import Table
from detector.utils.text import class_name_problem, shortened


def check_annotations(table: Table, kept: list[str] | None = None) -> list[Finding]:
    """All findings on the annotation file alone. kept: names of the classes that are trained, None = all."""
    findings = [*_repeated(table), *_repeated_categories(table), *_unknown(table)]
    table, more = _kept(table, kept)
    return [*findings, *more, *check_boxes(table), *check_duplicates(table), *_empty(table)]


def repeated(values: np.ndarray) -> np.ndarray:
    """Positions of the values that stand further up already, in order."""
    order = np.argsort(values, kind="stable")
    return np.sort(order[1:][values[order][1:] == values[order][:-1]])


def _repeated(table: Table) -> list[Finding]:
    columns = table.columns
    own_id = np.flatnonzero(~table.no_id)
    names = np.array([hash(table.file_name(i)) for i in range(len(columns.image_ids))], np.int64)
    return [
        *found("error", "duplicate-image-id", table.split, repeated(columns.image_ids),
               "images whose id is another's already: {n}",
               "which of them a box belongs to cannot be known: give each image its own id", table.image_example),
        *found("warning", "duplicate-file-name", table.split, repeated(names),
               "images whose file is another's already: {n}",
               "each lacks the boxes of the other, which are then trained as background; --fix joins them",
               table.image_example),
        *found("warning", "duplicate-annotation-id", table.split, own_id[repeated(columns.annotation_ids[own_id])],
               "annotations whose id is another's already: {n}",
               "nothing here goes by these ids, but other tools do; --fix numbers them anew", table.box_example),
        *found("note", "no-annotation-id", table.split, np.flatnonzero(table.no_id),
               "annotations without an id: {n}", "they are called by their position in the file; --fix numbers them",
               table.box_example),
    ]  # fmt: skip


def _repeated_categories(table: Table) -> list[Finding]:
    def text(c: int) -> str:
        id_, name = table.categories[c]
        others = [f"{i} is {n!r}" for i, n in table.categories[:c] if i == id_ or n == name]
        return f"category {id_} ({name}): {others[0]} already"

    ids, names = ([row[k] for row in table.categories] for k in (0, 1))
    unfit = [(id_, wrong) for id_, name in table.categories if (wrong := class_name_problem(name))]
    return [
        *found("error", "category-name", table.split, unfit, "categories whose name cannot be used: {n}",
               "give it a short name on one line", lambda case: f"category {case[0]}: its name {case[1]}"),
        *found("error", "duplicate-category-id", table.split, _seen_before(ids),
               "categories whose id is another's already: {n}",
               "which of them a box means cannot be known: give each its own id", text),
        *found("error", "duplicate-category-name", table.split, _seen_before(names),
               "categories whose name is another's already: {n}",
               "join them with --fix if they mean the same, or rename one", text),
    ]  # fmt: skip


def _seen_before(values: list) -> list[int]:
    first: dict = {}
    return [k for k, value in enumerate(values) if first.setdefault(value, k) != k]


def _unknown(table: Table) -> list[Finding]:
    """Annotations that refer to no record; those that refer to a broken one are told of with it."""
    columns = table.columns
    no_image = np.flatnonzero((table.image < 0) & ~np.isin(columns.box_image_ids, _array(table.broken_images)))
    known = _array({id_ for id_, _ in table.categories} | table.broken_categories)
    no_category = np.flatnonzero(~np.isin(columns.box_category_ids, known))

    def with_category(b: int) -> Example:
        example = table.box_example(b)
        return Example(f"{example.text}, category_id {columns.box_category_ids[b]}", example.file_name, example.boxes)

    return [
        *found("error", "unknown-image", table.split, no_image,
               "annotations whose image_id is not the id of any image: {n}",
               "the file and its images come from different exports; --fix drops these annotations",
               table.box_example),
        *found("error", "unknown-category", table.split, no_category,
               "annotations whose category_id is not the id of any category: {n}",
               "add the category, or drop them with --fix (ids often begin at 0 in one place and at 1 in another)",
               with_category),
    ]  # fmt: skip


def _kept(table: Table, kept: list[str] | None) -> tuple[Table, list[Finding]]:
    """The table without the annotations of classes that are not trained."""
    if kept is None:
        return table, []
    names = {name: id_ for id_, name in table.categories}
    absent = [name for name in kept if name not in names]
    kept = set(kept)
    ids = _array({id_ for id_, name in table.categories if name in kept})
    keep = np.isin(table.columns.box_category_ids, ids)
    others = _array({id_ for id_, name in table.categories if name not in kept})
    selected = replace(table.select(keep), categories=[row for row in table.categories if row[1] in kept])
    return selected, [
        *found("error", "no-such-class", table.split, absent,
               "classes of the descriptor that the annotation file has not: {n}",
               f"correct `classes:`; the file has: {shortened(list(names), 20)}"),
        *found("note", "left-out", table.split, np.flatnonzero(np.isin(table.columns.box_category_ids, others)),
               "annotations of classes that `classes:` does not keep: {n}", "they are not trained, nor looked at here",
               table.box_example),
    ]  # fmt: skip


def _empty(table: Table) -> list[Finding]:
    """Lists of nothing, classes of nothing, images of nothing."""
    columns, split = table.columns, table.split
    whole = [
        *(found("error", "no-images", split, [split], "the list of images is empty or unusable", "add images",
                None)
          if len(columns.image_ids) == 0 else []),
        *(found("error", "no-categories", split, [split], "the list of categories is empty or unusable",
                "add the classes", None) if not table.categories else []),
    ]  # fmt: skip
    usable = (table.image >= 0) & ~columns.iscrowd
    if not usable.any():
        advice = "nothing can be learnt or measured: see that this is the right file"
        return [*whole, *found("error", "no-objects", split, [split], "there is no object at all", advice, None)]
    with_objects = np.unique(table.image[table.image >= 0])
    empty = np.setdiff1d(np.arange(len(columns.image_ids)), with_objects)
    return [
        *whole,
        *found("warning" if split == "train" else "note", "class-without-objects", split, classes_without(table),
               f"classes of {len(table.categories)} without an object: {{n}}",
               "nothing is learnt of it: add examples, or leave it out of `classes:`" if split == "train"
               else "nothing can be said of how well it is found"),
        *found("note", "image-without-objects", split, empty,
               f"images of {len(columns.image_ids)} without an object: {{n}}",
               "good as background if they show none; if their objects are not annotated, leave them out",
               table.image_example),
    ]  # fmt: skip


def classes_without(table: Table) -> list[str]:
    """Names of the categories that no annotation is of, crowds apart."""
    present = set(table.columns.box_category_ids[~table.columns.iscrowd].tolist())
    with_objects = {name for id_, name in table.categories if id_ in present}
    return [name for name in dict(table.categories).values() if name not in with_objects]


def _array(values: set) -> np.ndarray:
    """Ids as int64; what is beyond it is no id of anything."""
    return np.array([v for v in values if -(2**63) <= v < 2**63], np.int64)
