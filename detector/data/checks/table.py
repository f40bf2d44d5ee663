"""An annotation file as a table, whatever is wrong with it: usable records become columns, the others findings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np

from detector.data.checks.annotation_lists import UTF8_ADVICE, read_lists
from detector.data.checks.finding import Example, Finding, found
from detector.data.coco_file import (
    CHUNK,
    AnnotationRecord,
    CategoryRecord,
    Columns,
    ImageRecord,
    box_columns,
    id_of,
    image_columns,
    name_at,
    sentence,
)
from detector.utils.text import LONGEST_NAME, printable


class _AnnotationAsWritten(AnnotationRecord, gc=False):
    iscrowd: bool | int = cast(int, None)  # None = the record has no iscrowd; a written null is still refused


class _BadRecord(NamedTuple):
    """A record that does not have the types of COCO."""

    position: int  # in its list, from 0
    id: Any  # what stands as its id, None if nothing does
    problem: str
    is_encoding: bool  # whether the problem is text that is not UTF-8


@dataclass
class Table:
    """The usable records of a split: I images, B annotations, C categories. Ids may repeat, or refer to nothing."""

    split: str
    columns: Columns
    categories: list[tuple[int, str]]  # C ids and names, in the file's order
    image: np.ndarray  # (B,) int64: image of the annotation (the first with its image_id); -1 = none has that id
    no_iscrowd: np.ndarray  # (B,) bool: the record has no `iscrowd`
    no_id: np.ndarray  # (B,) bool: the record has no id; `annotation_ids` has its position in the list, from 1
    bad_image_ids: set[int]  # ids of the image records that are not usable
    bad_category_ids: set[int]
    all_categories_usable: bool

    def file_name(self, i: int) -> str:
        """File name of image i, as written in the file."""
        return name_at(self.columns.names, self.columns.name_offsets, i)

    def stated_size(self, i: int) -> tuple[int, int]:
        """(h, w) pixels that the file states for image i."""
        return int(self.columns.heights[i]), int(self.columns.widths[i])

    def image_text(self, i: int) -> str:
        """Names image i in a message."""
        return f"image {self.columns.image_ids[i]} ({self._shown_name(i)})"

    def image_example(self, i: int) -> Example:
        """Image i as an example of a finding."""
        return Example(self.image_text(i), self.file_name(i))

    def box_text(self, b: int) -> str:
        """Names annotation b in a message, with its box."""
        x, y, w, h = self.columns.boxes[b].tolist()
        i = int(self.image[b])
        image = self._shown_name(i) if i >= 0 else self.columns.box_image_ids[b]
        id_ = self.columns.annotation_ids[b]
        return f"annotation {id_} (image {image}): [x, y, w, h] = [{x:g}, {y:g}, {w:g}, {h:g}]"

    def box_example(self, b: int, more: str = "") -> Example:
        """Annotation b as an example of a finding. more: ends its text."""
        i = int(self.image[b])
        x, y, w, h = self.columns.boxes[b].tolist()
        return Example(self.box_text(b) + more, self.file_name(i) if i >= 0 else None, ((x, y, w, h),))

    def select(self, keep: np.ndarray) -> Table:
        """The table with these annotations only; keep: (B,) bool."""
        columns = {
            key: getattr(self.columns, key)[keep]
            for key in ("box_image_ids", "box_category_ids", "boxes", "areas", "iscrowd", "annotation_ids")
        }
        return replace(
            self,
            columns=replace(self.columns, **columns),
            image=self.image[keep],
            no_iscrowd=self.no_iscrowd[keep],
            no_id=self.no_id[keep],
        )

    def _shown_name(self, i: int) -> str:
        return printable(self.file_name(i), LONGEST_NAME)


def read_table(path: Path, split: str) -> tuple[Table | None, list[Finding]]:
    """The table of an annotation file (None = nothing of it is usable), and findings on what is not usable."""
    lists, findings = read_lists(path, split)
    if lists is None:
        return None, findings
    table, more = table_of(path, split, lists)
    return table, findings + more


def table_of(path: Path, split: str, lists: dict[str, list]) -> tuple[Table, list[Finding]]:
    """The table of three lists of records, msgspec.Raw or Python objects, and findings on records of wrong types."""
    images, bad_images, _ = _split_records(lists["images"], ImageRecord)
    annotations, bad_annotations, flags = _split_records(lists["annotations"], _AnnotationAsWritten)
    categories, bad_categories, _ = _split_records(lists["categories"], CategoryRecord)
    findings = [
        *_record_findings(split, "image", bad_images, len(lists["images"])),
        *_record_findings(split, "annotation", bad_annotations, len(lists["annotations"])),
        *_record_findings(split, "category", bad_categories, len(lists["categories"])),
    ]
    decoded = [_decode(record, CategoryRecord) for record in categories]
    pairs = [(c.id, c.name) for c in decoded]
    arrays: dict[str, Any] = {**image_columns(path, images), **box_columns(path, annotations)}
    columns = Columns(**arrays, categories=dict(pairs))
    table = Table(
        split=split,
        columns=columns,
        categories=pairs,
        image=first_positions(columns.box_image_ids, columns.image_ids),
        no_iscrowd=(flags & 1) > 0,
        no_id=(flags & 2) > 0,
        bad_image_ids=_whole_ids(bad_images),
        bad_category_ids=_whole_ids(bad_categories),
        all_categories_usable=not bad_categories,
    )
    return table, findings


def table_of_columns(columns: Columns, image: np.ndarray, split: str) -> Table:
    """The table of a file that `read_columns` accepts. image: (B,) int64, the image of each annotation.

    The columns do not tell whether a record has its own `id` or `iscrowd`. So all ids are taken for missing, which
    leaves them unchecked, and every `iscrowd` for present.
    """
    count = len(image)
    return Table(
        split=split,
        columns=columns,
        categories=list(columns.categories.items()),
        image=image,
        no_iscrowd=np.zeros(count, bool),
        no_id=np.ones(count, bool),
        bad_image_ids=set(),
        bad_category_ids=set(),
        all_categories_usable=True,
    )


def first_positions(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(B,) int64: the first position in `ids` (I,) of each of `values` (B,); -1 if it is not in there."""
    if len(ids) == 0:
        return np.full(len(values), -1)
    order = np.argsort(ids, kind="stable")
    place = order[np.minimum(np.searchsorted(ids, values, sorter=order), len(ids) - 1)]
    return np.where(ids[place] == values, place, -1)


def _decode(record: msgspec.Raw | Any, struct: type) -> Any:
    if isinstance(record, msgspec.Raw):
        return msgspec.json.decode(record, type=struct)
    return msgspec.convert(record, struct)


def _split_records(records: list, struct: type) -> tuple[list, list[_BadRecord], np.ndarray]:
    """The usable records; the others; and flags of the usable ones, if they are annotations.

    flags: (usable,) uint8, 1 = no `iscrowd`, 2 = no `id`.
    """
    usable: list = []
    bad: list[_BadRecord] = []
    flags = bytearray()
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(struct)
    for start in range(0, len(records), CHUNK):
        for position, record in enumerate(records[start : start + CHUNK], start):
            try:
                row = decoder.decode(record) if isinstance(record, msgspec.Raw) else msgspec.convert(record, struct)
            except UnicodeError as problem:
                bad.append(_BadRecord(position, id_of(record), str(problem), True))
            except msgspec.ValidationError as problem:
                bad.append(_BadRecord(position, id_of(record), sentence(problem), False))
            else:
                usable.append(record)
                if struct is _AnnotationAsWritten:
                    flags.append((row.iscrowd is None) + 2 * (row.id is None))
    return usable, bad, np.frombuffer(bytes(flags), np.uint8)


def _record_findings(split: str, kind: str, bad: list[_BadRecord], total: int) -> list[Finding]:
    """Findings on the bad records of a list of `total`. kind: image, annotation or category."""
    messages = {
        "not-utf8": f"{{n}} of {total} {kind} records {{has|have}} text that is not UTF-8",
        "not-4-numbers": f"{{n}} of {total} boxes {{is|are}} not four numbers",
        f"{kind}-record": f"{{n}} of {total} {kind} records {{is|are}} not as COCO has them",
    }
    numbers = "--fix reads numbers written as text or as 7.0"
    category = "give each a whole number as `id` and text as `name`"
    advice = {
        "image": f"correct them; {numbers}, takes a missing size from the image file, and drops the others",
        "annotation": f"correct them; {numbers}, and drops the others",
        "category": f"{category}; {numbers}"
        if all(_is_whole(r.id) and r.problem.startswith("id:") for r in bad)
        else category,
    }[kind]
    cases: dict[str, list[_BadRecord]] = {check: [] for check in messages}
    for record in bad:
        is_box = record.problem.startswith("bbox")
        cases["not-utf8" if record.is_encoding else "not-4-numbers" if is_box else f"{kind}-record"].append(record)

    def text(record: _BadRecord) -> str:
        return f"{kind} {record_name(record.id, record.position)}: {record.problem}"

    return [
        finding
        for check, message in messages.items()
        for finding in found(
            "error", check, split, cases[check], message, UTF8_ADVICE if check == "not-utf8" else advice, text
        )
    ]


def record_name(id_: object, position: int) -> str:
    """Names a record in a message: by its id, or by its position (from 0) in the list if it has none."""
    return f"number {position + 1} of the list" if id_ is None else printable(str(id_), 80)


def _whole_ids(bad: list[_BadRecord]) -> set[int]:
    """The ids of bad records, also those written as text or as 7.0."""
    return {int(r.id) for r in bad if _is_whole(r.id)}


def _is_whole(id_: Any) -> bool:
    if isinstance(id_, float):
        return id_.is_integer()
    return isinstance(id_, int) or (isinstance(id_, str) and len(id_) < 20 and id_.isdecimal())
