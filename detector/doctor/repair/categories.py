"""Gives the annotation file of one split the categories of another, such as val those of train."""

from __future__ import annotations

import itertools
from pathlib import Path

from detector.data.checks.table import read_table
from detector.utils.text import match_names


def match_categories(tree: dict, other: Path, changes: list[str]) -> None:
    """Give each category the id that the file `other` has for its name, and add the categories that only `other` has.

    A name that differs from one of `other` only in case or spaces becomes that one. A category that `other` has not
    stays, with a new id if its own is taken. Nothing is changed if ids are ambiguous in either file.
    """
    table, _ = read_table(other, "")
    wanted = {name: id_ for id_, name in table.categories} if table else {}
    own = [record["id"] for record in tree["categories"]]
    if table is None or not len(wanted) == len(set(wanted.values())) == len(table.categories):
        changes.append(f"categories: left, though they should be those of {other}: repair that file first")
        return
    if len(set(own)) < len(own):
        changes.append(f"categories: left, though they should be those of {other}: two have one id")
        return
    counterpart = match_names([record["name"] for record in tree["categories"]], list(wanted))
    taken = {*wanted.values(), *own}
    free = (id_ for id_ in itertools.count(1) if id_ not in taken)
    new_id = {}
    for record in tree["categories"]:
        text = f"category {record['id']} ({record['name']})"
        name = counterpart.get(record["name"])
        if name is None:
            new_id[record["id"]] = next(free) if record["id"] in wanted.values() else record["id"]
        else:
            new_id[record["id"]] = wanted[name]
            if name != record["name"]:
                changes.append(f"{text}: renamed {name}, as in {other}")
                record["name"] = name
        if new_id[record["id"]] != record["id"]:
            changes.append(f"{text}: its id is now {new_id[record['id']]}")
            record["id"] = new_id[record["id"]]
    for name in [name for name in wanted if name not in counterpart.values()]:
        tree["categories"].append({"id": wanted[name], "name": name})
        changes.append(f"category {wanted[name]} ({name}): added, since {other} has it")
    for record in tree["annotations"]:
        record["category_id"] = new_id.get(record["category_id"], record["category_id"])
