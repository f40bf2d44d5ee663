"""Checks of one annotation file: repeated ids, references to nothing, classes and images without objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from detector.data.checks.boxes import check_boxes
from detector.data.checks.duplicate_boxes import check_duplicate_boxes
from detector.data.checks.finding import Finding, found
from detector.data.checks.table import Table
from detector.utils.text import class_name_problem, shortened


def check_annotations(table: Table, kept: list[str] | None = None) -> list[Finding]:
    """All findings on the annotation file alone. kept: names of the classes to train on, None = all.

    Annotations of other classes are only checked for their ids.
    """
    findings = [*_repeated_ids(table), *_categories(table), *_references(table)]
    table, more = _select_classes(table, kept)
    return [*findings, *more, *check_boxes(table), *check_duplicate_boxes(table), *_without_objects(table)]


def repeats(values: np.ndarray) -> np.ndarray:
    """Positions, ascending, of the values that occurred before."""
    order = np.argsort(values, kind="stable")
    return np.sort(order[1:][values[order][1:] == values[order][:-1]])


def _repeated_ids(table: Table) -> list[Finding]:
    columns = table.columns
    num_images, num_annotations = len(columns.image_ids), len(columns.annotation_ids)
    has_id = np.flatnonzero(~table.no_id)
    names = np.array([hash(table.file_name(i)) for i in range(len(columns.image_ids))], np.int64)
    return [
        *found("error", "duplicate-image-id", table.split, repeats(columns.image_ids),
               f"{{n}} of {num_images} images {{has|have}} the id of another image",
               "give each image its own id; which image a box belongs to is unknown until then, so --fix drops them",
               table.image_example),
        *found("warning", "duplicate-file-name", table.split, repeats(names),
               f"{{n}} of {num_images} images {{has|have}} the file of another image",
               "join them with --fix; until then the objects of each are background in the other",
               table.image_example),
        *found("warning", "duplicate-annotation-id", table.split, has_id[repeats(columns.annotation_ids[has_id])],
               f"{{n}} of {num_annotations} annotations {{has|have}} the id of another annotation",
               "number them with --fix if other tools read this file; training ignores these ids", table.box_example),
        *found("note", "no-annotation-id", table.split, np.flatnonzero(table.no_id),
               f"{{n}} of {num_annotations} annotations {{has|have}} no id",
               "number them with --fix; here they are named by their position in the file", table.box_example),
    ]  # fmt: skip


def _categories(table: Table) -> list[Finding]:
    """Categories with a bad name, or with the id or name of another."""

    def text(c: int) -> str:
        id_, name = table.categories[c]
        others = [f"{i} is {n!r}" for i, n in table.categories[:c] if i == id_ or n == name]
        return f"category {id_} ({name}): {others[0]} already"

    total = len(table.categories)
    bad_names = [(id_, wrong) for id_, name in table.categories if (wrong := class_name_problem(name))]
    return [
        *found("error", "category-name", table.split, bad_names,
               f"{{n}} of {total} categories {{has|have}} a name that cannot be used",
               "give each a short name on one line", lambda case: f"category {case[0]}: its name {case[1]}"),
        *found("error", "duplicate-category-id", table.split, _list_repeats([id_ for id_, _ in table.categories]),
               f"{{n}} of {total} categories {{has|have}} the id of another category",
               "give each category its own id; which class a box has is unknown until then", text),
        *found("error", "duplicate-category-name", table.split, _list_repeats([name for _, name in table.categories]),
               f"{{n}} of {total} categories {{has|have}} the name of another category",
               "join them with --fix if they mean the same; rename one if not", text),
    ]  # fmt: skip


def _list_repeats(values: list) -> list[int]:
    """As `repeats`. Not with an array: in an array of texts, each takes the memory of the longest."""
    first: dict = {}
    return [k for k, value in enumerate(values) if first.setdefault(value, k) != k]


def unknown_references(table: Table) -> dict[str, np.ndarray]:
    """(B,) bool: annotations whose `image_id`, and whose `category_id`, is the id of no record."""
    columns = table.columns
    known = {id_ for id_, _ in table.categories} | table.bad_category_ids
    return {
        "image_id": (table.image < 0) & ~np.isin(columns.box_image_ids, _id_array(table.bad_image_ids)),
        "category_id": ~np.isin(columns.box_category_ids, _id_array(known)),
    }


def _references(table: Table) -> list[Finding]:
    """Annotations that refer to nothing. Those of an unusable record are left out: that record has a finding."""
    unknown = {key: np.flatnonzero(which) for key, which in unknown_references(table).items()}
    category_ids = table.columns.box_category_ids
    total = len(category_ids)
    return [
        *found("error", "unknown-image", table.split, unknown["image_id"],
               f"{{n}} of {total} annotations {{has|have}} an image_id that no image has",
               "check that images and annotations are of the same export, or drop these annotations with --fix",
               table.box_example),
        *found("error", "unknown-category", table.split, unknown["category_id"],
               f"{{n}} of {total} annotations {{has|have}} a category_id that no category has",
               "add the category, or drop them with --fix (often ids count from 0 in one place, from 1 in another)",
               lambda b: table.box_example(b, f", category_id {category_ids[b]}")),
    ]  # fmt: skip


def _select_classes(table: Table, kept: list[str] | None) -> tuple[Table, list[Finding]]:
    """The table with the classes to train on only."""
    if kept is None:
        return table, []
    names, among = {name: id_ for id_, name in table.categories}, set(kept)
    ids = _id_array({id_ for id_, name in table.categories if name in among})
    other_ids = _id_array({id_ for id_, name in table.categories if name not in among})
    left_out = np.flatnonzero(np.isin(table.columns.box_category_ids, other_ids))
    selected = table.select(np.isin(table.columns.box_category_ids, ids))
    selected = replace(selected, categories=[row for row in table.categories if row[1] in among])
    return selected, [
        *found("error", "no-such-class", table.split, [name for name in kept if name not in names],
               f"{{n}} of {len(kept)} classes of the descriptor {{is|are}} not in the annotation file",
               f"correct `classes:`; the file has: {shortened(list(names), 20)}"),
        *found("note", "left-out", table.split, left_out,
               f"{{n}} of {len(table.image)} annotations {{is|are}} of classes that `classes:` leaves out",
               "nothing: they are neither trained nor checked", table.box_example),
    ]  # fmt: skip


def _without_objects(table: Table) -> list[Finding]:
    """Empty lists, classes without objects, images without objects."""
    columns, split = table.columns, table.split
    findings: list[Finding] = []
    if len(columns.image_ids) == 0:
        findings += found("error", "no-images", split, [split], "the list of images has no usable image", "add images",
                          None)  # fmt: skip
    if not table.categories:
        message = "the list of categories has no usable category"
        findings += found("error", "no-categories", split, [split], message, "add the classes", None)
    if not ((table.image >= 0) & ~columns.iscrowd).any():
        advice = "check that this is the right file: nothing can be learnt from it, or measured on it"
        return [*findings, *found("error", "no-objects", split, [split], "there is no object at all", advice, None)]
    with_objects = np.unique(table.image[table.image >= 0])
    empty = np.setdiff1d(np.arange(len(columns.image_ids)), with_objects)
    is_train = split == "train"
    return [
        *findings,
        *found("warning" if is_train else "note", "class-without-objects", split, classes_without_objects(table),
               f"{{n}} of {len(table.categories)} classes {{has|have}} no object",
               "add examples, or leave these classes out of `classes:`; they cannot be learnt" if is_train
               else "add examples; how well these classes are found cannot be measured"),
        *found("note", "image-without-objects", split, empty,
               f"{{n}} of {len(columns.image_ids)} images {{has|have}} no object",
               "nothing if they show none: they teach the background; if they do, annotate them or leave them out",
               table.image_example),
    ]  # fmt: skip


def classes_without_objects(table: Table) -> list[str]:
    """Names of the categories that only crowds have, or nothing."""
    present = set(table.columns.box_category_ids[~table.columns.iscrowd].tolist())
    with_objects = {name for id_, name in table.categories if id_ in present}
    return [name for name in dict(table.categories).values() if name not in with_objects]


def _id_array(ids: set[int]) -> np.ndarray:
    """Ids as int64; a number beyond int64 is the id of no record."""
    return np.array([id_ for id_ in ids if -(2**63) <= id_ < 2**63], np.int64)
