"""A COCO file read with patience: what can be used as columns, and what cannot as findings; it refuses no content."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

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
    read_almost_json,
    read_content,
    sentence,
)
from detector.doctor.finding import Example, Finding, found
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean
from detector.utils.text import LONGEST_NAME, printable

KINDS = ("images", "annotations", "categories")


class _AnnotationAsWritten(AnnotationRecord, gc=False):
    iscrowd: bool | int | msgspec.UnsetType = msgspec.UNSET


class _Lists(msgspec.Struct):
    images: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    annotations: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    categories: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


@dataclass
class Table:
    """The records of a split that are of the right types: I images, B annotations, C categories; ids may repeat."""

    split: str
    columns: Columns
    categories: list[tuple[int, str]]  # C ids and names, in the file's order
    image: np.ndarray  # (B,) int64: which image of the table the annotation is on (the first of that id), -1 = none
    no_iscrowd: np.ndarray  # (B,) bool: the record does not say
    no_id: np.ndarray  # (B,) bool: `annotation_ids` has the position in the list instead
    broken_images: set[int]  # ids of image records that cannot be used
    broken_categories: set[int]
    all_categories: bool  # whether every category record can be used

    def file_name(self, i: int) -> str:
        """Of image i, as the file has it."""
        return name_at(self.columns.names, self.columns.name_offsets, i)

    def name(self, i: int) -> str:
        """File name of image i, as it can be shown."""
        return printable(self.file_name(i), LONGEST_NAME)

    def image_text(self, i: int) -> str:
        return f"image {self.columns.image_ids[i]} ({self.name(i)})"

    def image_example(self, i: int) -> Example:
        return Example(self.image_text(i), self.file_name(i))

    def box_text(self, b: int) -> str:
        x, y, w, h = self.columns.boxes[b].tolist()
        i = self.image[b]
        of = self.name(i) if i >= 0 else self.columns.box_image_ids[b]
        return f"annotation {self.columns.annotation_ids[b]} (image {of}): [x, y, w, h] = [{x:g}, {y:g}, {w:g}, {h:g}]"

    def box_example(self, b: int) -> Example:
        i = self.image[b]
        return Example(
            self.box_text(b), self.file_name(i) if i >= 0 else None, (tuple(self.columns.boxes[b].tolist()),)
        )

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


def read_table(path: Path, split: str) -> tuple[Table | None, list[Finding]]:
    """What of an annotation file can be used (None = nothing), and what cannot."""
    lists, findings = read_lists(path, split)
    if lists is None:
        return None, findings
    table, more = table_of(path, split, lists)
    return table, findings + more


def table_of(path: Path, split: str, lists: dict[str, list]) -> tuple[Table, list[Finding]]:
    """The table of the three lists, of msgspec.Raw or of Python objects, and the records of wrong types."""
    images, wrong_images, _ = _sift(lists["images"], ImageRecord)
    annotations, wrong_annotations, flags = _sift(lists["annotations"], _AnnotationAsWritten)
    categories, wrong_categories, _ = _sift(lists["categories"], CategoryRecord)
    findings = [
        *_wrong(split, "image", wrong_images, "--fix takes a size from the image file and drops what cannot be mended"),
        *_wrong(split, "annotation", wrong_annotations, "--fix drops those that it cannot read as numbers"),
        *_wrong(split, "category", wrong_categories, "each needs a whole number as `id` and a text as `name`"),
    ]
    decoded = [_decode(record, CategoryRecord) for record in categories]
    pairs = [(c.id, c.name) for c in decoded]
    columns = Columns(**image_columns(path, images), **box_columns(path, annotations), categories=dict(pairs))
    table = Table(
        split=split,
        columns=columns,
        categories=pairs,
        image=positions(columns.box_image_ids, columns.image_ids),
        no_iscrowd=(flags & 1) > 0,
        no_id=(flags & 2) > 0,
        broken_images=_ids(wrong_images),
        broken_categories=_ids(wrong_categories),
        all_categories=not wrong_categories,
    )
    return table, findings


def positions(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(B,) int64: where in `ids` (I,) each of `values` (B,) stands first, -1 where it does not."""
    if len(ids) == 0:
        return np.full(len(values), -1)
    order = np.argsort(ids, kind="stable")
    place = order[np.minimum(np.searchsorted(ids, values, sorter=order), len(ids) - 1)]
    return np.where(ids[place] == values, place, -1)


def read_lists(path: Path, split: str) -> tuple[dict[str, list] | None, list[Finding]]:
    """The three lists of the file, undecoded where it is JSON in the strict sense."""
    try:
        content = read_content(path)
    except InputError as problem:
        near = did_you_mean(path.name, sorted(p.name for p in path.parent.glob("*.json")))
        return None, _file_error("no-file", split, str(problem), near)
    if not content.strip():
        return None, _file_error("empty-file", split, f"{path} is empty", "export the annotations again")
    raw = True
    try:
        top = msgspec.json.decode(content, type=_Lists)
        tree = {kind: getattr(top, kind) for kind in KINDS}
    except (ValueError, RecursionError):  # DecodeError is a ValueError; json also takes NaN, Infinity and a BOM
        raw = False
        try:
            tree = read_almost_json(content)
        except ValueError as problem:
            return None, _not_json(path, split, content, problem)
        if not isinstance(tree, dict):
            what = f"{path} holds a {type(tree).__name__} where COCO has an object"
            return None, _file_error("not-an-object", split, what, f"it needs {{{', '.join(KINDS)}}}, each a list")
    del content
    return _checked_lists(path, split, {kind: tree.get(kind, msgspec.UNSET) for kind in KINDS}, raw)


def _checked_lists(path: Path, split: str, tree: dict, raw: bool) -> tuple[dict[str, list] | None, list[Finding]]:
    findings = []
    lists: dict[str, list] = {}
    for kind, value in tree.items():
        if value is msgspec.UNSET:
            message = f"{path} has no `{kind}`"
            findings += _file_error("missing-list", split, message, f"a COCO file has the lists {', '.join(KINDS)}")
            continue
        try:
            lists[kind] = msgspec.json.decode(value, type=list[msgspec.Raw]) if raw else value
        except msgspec.ValidationError:
            lists[kind] = None
        if not isinstance(lists[kind], list):
            message = f"{path}: `{kind}` is not a list"
            findings += _file_error("not-a-list", split, message, f"`{kind}` must be a list of objects")
    return (None if findings else lists), findings


def _not_json(path: Path, split: str, content: bytes, problem: Exception) -> list[Finding]:
    if isinstance(problem, json.JSONDecodeError):
        where = f"line {problem.lineno}, column {problem.colno}: {problem.msg}"
        cut = problem.pos >= len(problem.doc.rstrip()) - 1 or problem.msg.startswith("Unterminated")
        advice = "the file seems cut short: copy or export it again" if cut else "correct it there, or export it again"
        return _file_error("broken-json", split, f"{path} is not JSON, {where}", advice)
    if isinstance(problem, UnicodeDecodeError):
        line = content.count(b"\n", 0, problem.start) + 1
        what = f"{path} is not UTF-8, line {line}, byte {problem.start}: {problem.reason}"
        return _file_error("not-utf8", split, what, "save it as UTF-8 (iconv -f latin1 -t utf-8, say)")
    return _file_error("broken-json", split, f"{path} is not JSON: {problem}", "export it again")


def _file_error(check: str, split: str, message: str, advice: str) -> list[Finding]:
    return found("error", check, split, [message], message, advice, None)


def _decode(record: msgspec.Raw | Any, struct: type) -> Any:
    if isinstance(record, msgspec.Raw):
        return msgspec.json.decode(record, type=struct)
    return msgspec.convert(record, struct)


def _sift(records: list, struct: type) -> tuple[list, list, np.ndarray]:
    """The records that are right; (position, record, problem, is it bad text) of the others; flags of the right ones.

    flags: (right,) uint8, 1 = no `iscrowd`, 2 = no `id`.
    """
    right: list = []
    wrong: list = []
    flags = bytearray()
    decoder = msgspec.json.Decoder(struct)
    for start in range(0, len(records), CHUNK):
        for position, record in enumerate(records[start : start + CHUNK], start):
            try:
                row = decoder.decode(record) if isinstance(record, msgspec.Raw) else msgspec.convert(record, struct)
            except (msgspec.ValidationError, UnicodeError) as problem:
                not_text = isinstance(problem, UnicodeError)
                wrong.append((position, record, str(problem) if not_text else sentence(problem), not_text))
            else:
                right.append(record)
                if struct is _AnnotationAsWritten:
                    flags.append((row.iscrowd is msgspec.UNSET) + 2 * (row.id is None))
    return right, wrong, np.frombuffer(bytes(flags), np.uint8)


def _wrong(split: str, kind: str, wrong: list, advice: str) -> list[Finding]:
    """The records of wrong types: bad text, boxes that are not four numbers, and the rest."""
    groups: dict[str, list] = {"not-utf8": [], "not-4-numbers": [], f"{kind}-record": []}
    for case in wrong:
        if case[3]:
            groups["not-utf8"].append(case)
        elif case[2].startswith("bbox"):
            groups["not-4-numbers"].append(case)
        else:
            groups[f"{kind}-record"].append(case)
    messages = {
        "not-utf8": f"{kind} records with text that is not UTF-8: {{n}}",
        "not-4-numbers": "boxes that are not four numbers: {n}",
        f"{kind}-record": f"{kind} records that are not as COCO has them: {{n}}",
    }

    def text(case: tuple) -> str:
        position, record, problem, _ = case
        id_ = id_of(record)
        where = f"{kind} number {position + 1} of the list" if id_ is None else f"{kind} {printable(str(id_), 80)}"
        return f"{where}: {problem}"

    return [
        finding
        for check, cases in groups.items()
        for finding in found("error", check, split, cases, messages[check], advice, text)
    ]


def _ids(wrong: list) -> set[int]:
    """Ids of records that cannot be used, also where text stands for the number."""
    ids = (id_of(record) for _, record, _, _ in wrong)
    return {
        int(id_) for id_ in ids if isinstance(id_, int) or (isinstance(id_, str) and len(id_) < 20 and id_.isdecimal())
    }
