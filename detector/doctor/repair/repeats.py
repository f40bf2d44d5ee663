"""Repairs ids and names that occur twice: joins categories of one name and images of one file, numbers annotations."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

from detector.utils.text import class_name_problem


def join_categories(tree: dict, changes: list[str]) -> None:
    """Keep one category of each name, and give its id to the annotations of the others.

    Two names with one id are left: which of them an annotation means, only a person knows.
    """
    kept: dict[str, dict] = {}
    name_of: dict[int, str] = {}  # the first name of each id that is kept
    new_id: dict[int, int] = {}
    for record in tree["categories"]:
        id_, name = record["id"], record["name"]
        if name in kept:
            new_id[id_] = kept[name]["id"]
            changes.append(f"category {id_} ({name}): joined with category {new_id[id_]} of the same name")
            continue
        if name_of.setdefault(id_, name) != name:
            changes.append(f"category {id_} ({name}): left, though {name_of[id_]} has this id too: give it its own")
        if wrong := class_name_problem(name):
            changes.append(f"category {id_}: left, though its name {wrong}: give it another")
        kept[name] = record
    tree["categories"] = list(kept.values())
    kept_ids = {record["id"] for record in tree["categories"]}
    for record in tree["annotations"]:
        id_ = record["category_id"]
        if id_ in new_id and id_ not in kept_ids:
            record["category_id"] = new_id[id_]


def join_images(tree: dict, changes: list[str]) -> None:
    """Keep one image of each file, with the boxes of the others. Drop images of different files with the same id."""
    files = defaultdict(set)
    for record in tree["images"]:
        files[record["id"]].add(record["file_name"])
    uses = Counter(record["id"] for record in tree["images"])
    kept: dict[str, dict] = {}
    new_id: dict[int, int] = {}
    for record in tree["images"]:
        id_, name = record["id"], record["file_name"]
        if len(files[id_]) > 1:
            reason = f"{uses[id_]} images have this id, so which boxes it has is unknown"
            changes.append(f"image {id_} ({name}): dropped: {reason}")
        elif name in kept:
            first = new_id[id_] = kept[name]["id"]
            what = "listed twice, one dropped" if first == id_ else f"joined with image {first} of the same file"
            changes.append(f"image {id_} ({name}): {what}")
        else:
            kept[name] = record
    tree["images"] = list(kept.values())
    for record in tree["annotations"]:
        record["image_id"] = new_id.get(record["image_id"], record["image_id"])


def number_annotations(tree: dict, changes: list[str]) -> None:
    """Give a new id to each annotation that has none, or that of an earlier one."""
    taken = {record["id"] for record in tree["annotations"] if record.get("id") is not None}
    free = (id_ for id_ in itertools.count(1) if id_ not in taken)
    given = set()
    for position, record in enumerate(tree["annotations"], 1):
        id_ = record.get("id")
        if id_ is None or id_ in given:
            record["id"] = next(free)
            which = "without an id" if id_ is None else f"{id_}, with the id of an earlier one"
            place = f"image {record['image_id']}, number {position} of the list"
            changes.append(f"annotation {which} ({place}): its id is now {record['id']}")
        given.add(record["id"])
