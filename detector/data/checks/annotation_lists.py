"""The three lists of an annotation file (images, annotations, categories), or findings that say why it has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from detector.data.checks.finding import Finding, found
from detector.data.coco_file import read_almost_json, read_content
from detector.utils.errors import InputError
from detector.utils.nearest import nearest_file

KINDS = ("images", "annotations", "categories")
UTF8_ADVICE = "convert it to UTF-8, for example with iconv -f latin1 -t utf-8"


class _Lists(msgspec.Struct):
    images: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    annotations: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    categories: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def read_lists(path: Path, split: str) -> tuple[dict[str, list] | None, list[Finding]]:
    """The lists of the file, or None and findings that say why.

    Their records are undecoded JSON (msgspec.Raw); Python objects where the file is JSON only in Python's wider sense
    (`read_almost_json`).
    """
    try:
        content = read_content(path)
    except InputError as problem:
        return None, _file_error("no-file", split, str(problem), nearest_file(path, "*.json"))
    if not content.strip():
        return None, _file_error("empty-file", split, f"{path} is empty", "export the annotations again")
    try:
        top = msgspec.json.decode(content, type=_Lists)
        return _check_lists(path, split, {kind: getattr(top, kind) for kind in KINDS}, raw=True)
    except (ValueError, RecursionError):  # DecodeError is a ValueError; NaN, Infinity and a BOM come here
        pass
    try:
        tree = read_almost_json(content)
    except ValueError as problem:
        return None, _not_json(path, split, content, problem)
    if not isinstance(tree, dict):
        message = f"{path} holds a {type(tree).__name__} where COCO has an object"
        return None, _file_error("not-an-object", split, message, f"it needs {{{', '.join(KINDS)}}}, each a list")
    return _check_lists(path, split, {kind: tree.get(kind, msgspec.UNSET) for kind in KINDS}, raw=False)


def _check_lists(
    path: Path, split: str, tree: dict[str, Any], raw: bool
) -> tuple[dict[str, list] | None, list[Finding]]:
    """The lists, if all three exist and are lists. raw: whether they are still undecoded JSON."""
    findings: list[Finding] = []
    lists: dict[str, list] = {}
    for kind, value in tree.items():
        if value is msgspec.UNSET:
            advice = f"a COCO file has the lists {', '.join(KINDS)}"
            findings += _file_error("missing-list", split, f"{path} has no `{kind}`", advice)
            continue
        records = _as_list(value, raw)
        if records is None:
            advice = f"make `{kind}` a list of objects"
            findings += _file_error("not-a-list", split, f"{path}: `{kind}` is not a list", advice)
        else:
            lists[kind] = records
    return (None if findings else lists), findings


def _as_list(value: Any, raw: bool) -> list | None:
    try:
        value = msgspec.json.decode(value, type=list[msgspec.Raw]) if raw else value
    except msgspec.ValidationError:
        return None
    return value if isinstance(value, list) else None


def _not_json(path: Path, split: str, content: bytes, problem: Exception) -> list[Finding]:
    """The finding for what JSON's or UTF-8's decoder says."""
    if isinstance(problem, json.JSONDecodeError):
        where = f"line {problem.lineno}, column {problem.colno}: {problem.msg}"
        cut = problem.pos >= len(problem.doc.rstrip()) - 1 or problem.msg.startswith("Unterminated")
        advice = "the file seems cut short: copy or export it again" if cut else "correct it there, or export it again"
        return _file_error("broken-json", split, f"{path} is not JSON, {where}", advice)
    if isinstance(problem, UnicodeDecodeError):
        line = content.count(b"\n", 0, problem.start) + 1
        message = f"{path} is not UTF-8, line {line}, byte {problem.start}: {problem.reason}"
        return _file_error("not-utf8", split, message, UTF8_ADVICE)
    return _file_error("broken-json", split, f"{path} is not JSON: {problem}", "export it again")


def _file_error(check: str, split: str, message: str, advice: str) -> list[Finding]:
    return found("error", check, split, [message], message, advice, None)
