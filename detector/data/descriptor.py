"""The dataset descriptor: a small YAML file with the images and annotations of each split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean, nearest_file
from detector.utils.text import command, quoted
from detector.utils.untrusted.yaml import read_yaml_file

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """One part of a dataset: the folder to which file names are relative, and the COCO annotation file."""

    images: Path
    annotations: Path


@dataclass(frozen=True)
class Descriptor:
    """A dataset: the classes to keep, in the order of the labels (None = the annotation file's), and its splits."""

    path: Path
    classes: list[str] | None
    splits: dict[str, Split]

    def named(self, name: str) -> Split:
        """The split called `name`, whether its files exist or not. Raises InputError where there is no such split."""
        if name not in self.splits:
            make = f"; `{split_command(self.path)}` makes one" if name == "val" else ""
            raise InputError(f"{self.path}: no split `{name}`; there is: {', '.join(self.splits)}{make}")
        return self.splits[name]

    def split(self, name: str) -> Split:
        """The split called `name`, whose folder and file exist; those of other splits may be missing.

        Raises InputError with the nearest existing name.
        """
        split = self.named(name)
        if not split.images.is_dir():
            near = nearest_file(split.images, "*/")
            raise InputError(f"{self.path}: {name}: no such folder {split.images}; {near}")
        if not split.annotations.is_file():
            near = nearest_file(split.annotations, "*.json")
            raise InputError(f"{self.path}: {name}: no such annotation file {split.annotations}; {near}")
        return split


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


def split_command(path: str | Path) -> str:
    """The command that makes the splits which a dataset lacks, or repairs them. path: as for `descriptor_of`."""
    return command("datasets/split.py", path)


def load_descriptor(path: str | Path) -> Descriptor:
    """Read a descriptor; its paths are relative to its own folder.

    Raises InputError when the file does not exist, is no YAML, or a key is unknown, missing or of a wrong type.
    """
    path = Path(path)
    tree = read_yaml_file(path, "dataset descriptor")
    for key in tree:
        if key != "classes" and key not in SPLITS:
            raise InputError(f"{path}: unknown key `{key}`; {did_you_mean(key, ('classes', *SPLITS))}")
    splits = {name: _split(path, name, tree[name]) for name in SPLITS if name in tree}
    if not splits:
        raise InputError(f"{path}: has no split; it needs `train:` with `images:` and `annotations:`")
    return Descriptor(path, _classes(path, tree.get("classes", "auto")), splits)


def _classes(path: Path, classes: Any) -> list[str] | None:
    if classes is None or classes == "auto":
        return None
    if not isinstance(classes, list) or not classes:
        raise InputError(f"{path}: classes: must be `auto` or a list of names, got {quoted(classes)}")
    for name in classes:
        if not isinstance(name, str):
            raise InputError(f"{path}: classes: {quoted(name)} is not text; quote it if it is a name")
    return classes


def _split(path: Path, name: str, entry: Any) -> Split:
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {name}: expected {{images: folder, annotations: file}}, got {quoted(entry)}")
    wanted = ("images", "annotations")
    for key in entry:
        if key not in wanted:
            raise InputError(f"{path}: {name}: unknown key `{key}`; {did_you_mean(key, wanted)}")
    for key in wanted:
        if not isinstance(entry.get(key), str):
            raise InputError(f"{path}: {name}: `{key}:` is missing or is not a path")
        try:
            (path.parent / entry[key]).stat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass  # this split may be on another machine
        except (OSError, ValueError):  # too long, with a zero byte, or a lone surrogate
            raise InputError(f"{path}: {name}: `{key}:` cannot be a path, got {quoted(entry[key])}") from None
    return Split(path.parent / entry["images"], path.parent / entry["annotations"])
