"""The images of all splits of a dataset as one pool, and new splits of it as COCO files and a descriptor."""

import os
import shlex
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from coco_json import read_json, write_json

from detector.data.coco import check_images_exist, read_coco
from detector.data.descriptor import SPLITS, Descriptor
from detector.utils.atomic import write_atomically
from detector.utils.errors import InputError

LISTS = ("images", "annotations", "categories")


@dataclass
class Pool:
    """I images of all splits, one split after the other; K classes."""

    descriptor: Descriptor
    trees: dict[str, dict]  # split → its COCO file
    splits: list[str]  # I: the split of each image
    images: list[dict]  # I: its entry in the COCO file
    class_names: list[str]  # K
    boxes: np.ndarray  # (I, K) int64: how many each image has of each class, without crowds

    def path(self, i: int) -> Path:
        """The file of image i."""
        return Path(os.path.abspath(self.descriptor.splits[self.splits[i]].images / self.images[i]["file_name"]))


def read_pool(descriptor: Descriptor) -> Pool:
    """Read all splits, train first. Bad boxes are not counted. Raises InputError where a file is not a COCO file, or an
    image is missing."""
    data = {
        name: read_coco(descriptor.split(name), descriptor.classes if name == "train" else None, "drop")
        for name in SPLITS
        if name in descriptor.splits
    }
    for own in data.values():
        check_images_exist(own)
    trees = {name: read_json(descriptor.splits[name].annotations) for name in data}
    names = descriptor.classes or list(dict.fromkeys(name for own in data.values() for name in own.class_names))
    counts = []
    for own in data.values():
        counts.append(np.zeros((len(own), len(names)), np.int64))
        column = np.array([names.index(name) if name in names else -1 for name in own.class_names])[own.labels]
        counted = ~own.iscrowd & (column >= 0)
        np.add.at(counts[-1], (own.box_images[counted], column[counted]), 1)
    return Pool(
        descriptor=descriptor,
        trees=trees,
        splits=[name for name, tree in trees.items() for _ in tree["images"]],
        images=[image for tree in trees.values() for image in tree["images"]],
        class_names=names,
        boxes=np.concatenate(counts),
    )


def targets(pool: Pool, out: Path, names: list[str]) -> dict[str, Path]:
    """Split → the annotation file to write, beside that of train and named after `out`.

    Raises InputError where one of them, or `out`, is a file of the dataset itself.
    """
    names = [name for name in SPLITS if name in names]
    folder = pool.descriptor.splits["train"].annotations.parent
    files = {name: folder / f"{out.stem}_{name}.json" for name in names}
    own = {pool.descriptor.path.resolve(), *(s.annotations.resolve() for s in pool.descriptor.splits.values())}
    for file in (out, *files.values()):
        if file.resolve() in own:
            raise InputError(f"{file}: is a file of the dataset itself; name another with --out")
    return files


def check_new(files: list[Path]) -> None:
    """Raise InputError if one of the files exists."""
    for file in files:
        if file.exists():
            raise InputError(f"{file}: exists already; give another name with --out, or replace it with --overwrite")


def write_splits(pool: Pool, out: Path, files: dict[str, Path], members: dict[str, list[int]]) -> None:
    """Write the annotation file of each split, and the descriptor `out`. members: split → its images in the pool.

    All files get all categories, with train's ids. What stays in its split stays as it was; what comes from another
    gets another id where its own is taken.
    """
    ids = _category_ids(pool)
    categories = list({c["name"]: {**c, "id": ids[c["name"]]} for c in _all_categories(pool)}.values())
    folders = {os.path.abspath(split.images) for split in pool.descriptor.splits.values()}
    root = Path(os.path.commonpath(folders))
    annotations = _annotations_of_images(pool, ids)
    entries = {}
    for name, file in files.items():
        own = sorted(members[name], key=lambda i: pool.splits[i] != name)  # what stays comes first, and keeps its ids
        tree = {key: value for key, value in pool.trees.get(name, pool.trees["train"]).items() if key not in LISTS}
        write_json(file, {**tree, **_records(pool, own, root, annotations), "categories": categories})
        entries[name] = {"images": _relative(root, out), "annotations": _relative(file, out)}
    lines = [f"# Made by: {shlex.join(['python', *sys.argv])}", f"classes: {_yaml(pool.descriptor.classes or 'auto')}"]
    lines += [f"{name}: {_yaml(entry)}" for name, entry in entries.items()]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, "\n".join(lines) + "\n")


def _records(pool: Pool, own: list[int], root: Path, annotations: dict[int, list[dict]]) -> dict[str, list[dict]]:
    """The images and annotations of a split. own: its images in the pool, those that keep their ids first."""
    image_ids, box_ids = _Ids(), _Ids()
    records: dict[str, list[dict]] = {"images": [], "annotations": []}
    for i in own:
        id_ = image_ids.give(pool.images[i]["id"])
        name = pool.path(i).relative_to(root).as_posix()
        records["images"].append({**pool.images[i], "id": id_, "file_name": name})
        for record in annotations[i]:
            new = {"id": box_ids.give(record["id"])} if record.get("id") is not None else {}
            records["annotations"].append({**record, **new, "image_id": id_})
    return records


class _Ids:
    """Ids for records, each once: their own, or a new one where that is taken."""

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.greatest = 0

    def give(self, wanted: int) -> int:
        id_ = self.greatest + 1 if wanted in self.taken else wanted
        self.taken.add(id_)
        self.greatest = max(self.greatest, id_)
        return id_


def _all_categories(pool: Pool) -> list[dict]:
    return [category for tree in pool.trees.values() for category in tree["categories"]]


def _category_ids(pool: Pool) -> dict[str, int]:
    """Name → id, of the categories of all splits: train's, and for others their own, or a new one where it is taken."""
    ids, taken = {}, _Ids()
    for category in _all_categories(pool):
        if category["name"] not in ids:
            ids[category["name"]] = taken.give(category["id"])
    return ids


def _annotations_of_images(pool: Pool, ids: dict[str, int]) -> dict[int, list[dict]]:
    """Image in the pool → its annotations, with the category ids `ids` (name → id)."""
    position = {(split, image["id"]): i for i, (split, image) in enumerate(zip(pool.splits, pool.images, strict=True))}
    found = defaultdict(list)
    for split, tree in pool.trees.items():
        names = {category["id"]: category["name"] for category in tree["categories"]}
        for record in tree["annotations"]:
            category = ids[names[record["category_id"]]]
            found[position[split, record["image_id"]]].append({**record, "category_id": category})
    return found


def _relative(path: Path, out: Path) -> str:
    """A path as the descriptor `out` names it."""
    return Path(os.path.relpath(path, out.parent)).as_posix()


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False).removesuffix("...\n").strip()
