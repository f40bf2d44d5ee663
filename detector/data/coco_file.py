"""A COCO annotation file as flat columns.

Records are decoded in pieces: ten million boxes as Python objects at a time would take tens of gigabytes.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch

from detector.utils.errors import InputError
from detector.utils.memory import available_memory
from detector.utils.text import class_name_problem, quoted
from detector.utils.untrusted.file_names import stays_inside

CHUNK = 1 << 16  # records that are Python objects at a time
MAX_ALMOST_JSON = 1 << 27  # bytes: Python's json module needs ten times the memory that msgspec needs

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Side = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class ImageRecord(msgspec.Struct, gc=False):
    """An entry of `images`; other keys are ignored. Sides in pixels."""

    id: Id
    file_name: str
    height: Side
    width: Side


class AnnotationRecord(msgspec.Struct, gc=False):
    """An entry of `annotations`; other keys are ignored. bbox: x, y, w, h in pixels."""

    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]
    id: Id | None = None
    area: float | None = None
    iscrowd: bool | int = 0


class CategoryRecord(msgspec.Struct, gc=False):
    """An entry of `categories`; other keys are ignored."""

    id: Id
    name: str


class _AnyRecord(msgspec.Struct):
    id: Any = None


class _RawFile(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw]


class _ParsedFile(msgspec.Struct):
    images: list
    annotations: list
    categories: list


@dataclass
class Columns:
    """I images, B annotations and C categories in the file's order. Ids and boxes are not checked."""

    image_ids: np.ndarray  # (I,) int64
    heights: np.ndarray  # (I,) int32
    widths: np.ndarray  # (I,) int32
    names: bytes  # the file names, UTF-8, one after the other
    name_offsets: np.ndarray  # (I+1,) int64: name i is names[name_offsets[i]:name_offsets[i + 1]]
    box_image_ids: np.ndarray  # (B,) int64
    box_category_ids: np.ndarray  # (B,) int64
    boxes: np.ndarray  # (B,4) float64 x, y, w, h
    areas: np.ndarray  # (B,) float64, NaN where the file has none
    iscrowd: np.ndarray  # (B,) bool
    annotation_ids: np.ndarray  # (B,) int64
    categories: dict[int, str]  # id -> name


def name_at(names: bytes, offsets: np.ndarray, i: int) -> str:
    """File name i. Lone surrogates are kept: such a name is later reported as a missing file."""
    return names[offsets[i] : offsets[i + 1]].decode(errors="surrogatepass")


def read_columns(path: Path) -> Columns:
    """Read a COCO file.

    An annotation without an id gets its position in the file, counted from 1. Annotation ids only appear in messages,
    so they may be 0 or repeated.

    Raises InputError with the first record that does not follow COCO's format, an id or category name that occurs
    twice, a file_name outside the images' folder (see `stays_inside`), or an unusable category name (see
    `class_name_problem`).
    """
    file = _parse(path)
    categories = [row for rows in _decode(path, file.categories, CategoryRecord, "category") for row in rows]
    _check_unique(path, [c.id for c in categories], "category id")
    _check_unique(path, [c.name for c in categories], "category name")
    for category in categories:
        if wrong := class_name_problem(category.name):
            raise InputError(f"{path}: category {category.id}: its name {wrong}")
    images = image_columns(path, file.images)
    _check_unique(path, images["image_ids"], "image id")
    _check_file_names(path, images)
    boxes = box_columns(path, file.annotations)
    return Columns(**images, **boxes, categories={c.id: c.name for c in categories})


def image_columns(path: Path, records: list) -> dict[str, Any]:
    """The columns of `Columns` that describe images, from JSON (msgspec.Raw) or Python objects.

    Raises InputError for a record that does not follow COCO's format. Ids and names are not checked.
    """
    ids = np.empty(len(records), np.int64)
    sizes = np.empty((len(records), 2), np.int32)
    lengths = np.zeros(len(records) + 1, np.int64)
    names = bytearray()
    end = 0
    for rows in _decode(path, records, ImageRecord, "image"):
        start, end = end, end + len(rows)
        ids[start:end] = [r.id for r in rows]
        sizes[start:end] = [(r.height, r.width) for r in rows]
        encoded = [r.file_name.encode(errors="surrogatepass") for r in rows]
        lengths[start + 1 : end + 1] = [len(name) for name in encoded]
        names += b"".join(encoded)
    return {
        "image_ids": ids,
        "heights": sizes[:, 0].copy(),
        "widths": sizes[:, 1].copy(),
        "names": bytes(names),
        "name_offsets": np.cumsum(lengths),
    }


def box_columns(path: Path, records: list) -> dict[str, Any]:
    """The columns of `Columns` that describe annotations, from JSON (msgspec.Raw) or Python objects.

    Raises InputError for a record that does not follow COCO's format. Ids and boxes are not checked.
    """
    count = len(records)
    columns: dict[str, Any] = {
        "box_image_ids": np.empty(count, np.int64),
        "box_category_ids": np.empty(count, np.int64),
        "boxes": np.empty((count, 4), np.float64),
        "areas": np.empty(count, np.float64),
        "iscrowd": np.empty(count, bool),
        "annotation_ids": np.empty(count, np.int64),
    }
    end = 0
    for rows in _decode(path, records, AnnotationRecord, "annotation"):
        start, end = end, end + len(rows)
        columns["box_image_ids"][start:end] = [r.image_id for r in rows]
        columns["box_category_ids"][start:end] = [r.category_id for r in rows]
        columns["boxes"][start:end] = [r.bbox for r in rows]
        columns["areas"][start:end] = [np.nan if r.area is None else r.area for r in rows]
        columns["iscrowd"][start:end] = [r.iscrowd for r in rows]
        columns["annotation_ids"][start:end] = [
            position if r.id is None else r.id for position, r in enumerate(rows, start + 1)
        ]
    return columns


def _parse(path: Path) -> _RawFile | _ParsedFile:
    """The three lists of the file: undecoded JSON, or Python objects where only Python's json module can read it."""
    content = read_content(path)
    try:
        return msgspec.json.decode(content, type=_RawFile)
    except msgspec.ValidationError as problem:
        raise InputError(f"{path}: not a COCO annotation file, {sentence(problem)}") from None
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return msgspec.convert(read_almost_json(content), type=_ParsedFile)
    except msgspec.ValidationError as problem:
        raise InputError(f"{path}: not a COCO annotation file, {sentence(problem)}") from None
    except ValueError as problem:
        raise InputError(f"{path}: not valid JSON, {problem}") from None


def read_content(path: Path) -> bytes:
    """The file's bytes. Raises InputError where it cannot be read, or is larger than the free memory."""
    try:
        size, free = path.stat().st_size, available_memory(torch.device("cpu"))
        if free is not None and size > free:
            raise InputError(f"{path}: has {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free")
        return path.read_bytes()
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from None


def read_almost_json(content: bytes) -> Any:
    """Decode with Python's json module: it also reads NaN and Infinity, which it writes, and a byte order mark.

    Raises ValueError for content that it cannot read, numbers of thousands of digits, thousands of nested lists, or
    more than MAX_ALMOST_JSON bytes.
    """
    try:
        if len(content) <= MAX_ALMOST_JSON:
            return json.loads(content)
        msgspec.json.decode(content, type=_RawFile)
    except RecursionError:
        raise ValueError("lists or objects are nested too deep") from None
    except msgspec.DecodeError as problem:
        text = f"{problem}; a file with NaN or Infinity may have {MAX_ALMOST_JSON >> 20} MB at most"
        raise ValueError(text) from None
    raise AssertionError("only called for what msgspec does not read")


def _decode(path: Path, records: list, struct: type, kind: str) -> Iterator[list]:
    """The records as `struct`, CHUNK at a time. Raises InputError naming the first wrong record."""
    decode: Callable[[Any], Any] = functools.partial(msgspec.convert, type=struct)
    if records and isinstance(records[0], msgspec.Raw):
        decode = msgspec.json.Decoder(struct).decode
    for start in range(0, len(records), CHUNK):
        chunk = records[start : start + CHUNK]
        try:
            rows = [decode(record) for record in chunk]
        except (msgspec.ValidationError, UnicodeError):
            raise InputError(f"{path}: {_first_wrong(chunk, decode, kind, start)}") from None
        yield rows


def _first_wrong(chunk: list, decode: Callable, kind: str, start: int) -> str:
    """What is wrong with the first record that cannot be decoded. start: position of the chunk in the list."""
    for position, record in enumerate(chunk, start + 1):
        try:
            decode(record)
        except (msgspec.ValidationError, UnicodeError) as problem:
            id_ = id_of(record)
            where = f"{kind} number {position} of the list" if id_ is None else f"{kind} {quoted(id_)}"
            return f"{where}: {sentence(problem)}"
    raise AssertionError("only called when a record of the chunk is wrong")


def id_of(record: msgspec.Raw | Any) -> Any:
    """The value of the record's `id`, of any type; None without one, or where the record is no JSON object."""
    try:
        if isinstance(record, msgspec.Raw):
            return msgspec.json.decode(record, type=_AnyRecord).id
        return msgspec.convert(record, type=_AnyRecord).id
    except (msgspec.ValidationError, UnicodeError):
        return None


def sentence(problem: Exception) -> str:
    """An error of msgspec, ``Expected `int`, got `str` - at `$.id` ``, as ``id: expected `int`, got `str` ``."""
    text, _, place = str(problem).partition(" - at ")
    field = re.sub(r"^`\$\.?|`$", "", place)
    return f"{field + ': ' if field else ''}{text[0].lower()}{text[1:]}"


def _check_file_names(path: Path, images: dict[str, Any]) -> None:
    for i, id_ in enumerate(images["image_ids"]):
        name = name_at(images["names"], images["name_offsets"], i)
        if not stays_inside(name):
            raise InputError(
                f"{path}: image {id_}: file_name {quoted(name)} leaves the folder of the images; names must be "
                "relative to it, without `..`: let `images:` of the dataset's YAML name a folder above all of them"
            )


def _check_unique(path: Path, values: list | np.ndarray, what: str) -> None:
    """Raise InputError with a value that occurs twice. Texts must be in a list: an array would pad them all."""
    if isinstance(values, np.ndarray):
        ordered = np.sort(values)
        duplicate = next(iter(ordered[1:][ordered[1:] == ordered[:-1]].tolist()), None)
    else:
        duplicate = next((value for value, count in Counter(values).items() if count > 1), None)
    if duplicate is not None:
        raise InputError(f"{path}: {what} {quoted(duplicate)} occurs twice; each must be unique")
