"""What is said about a configuration: one sentence on what is wrong with it, and the reference of all its fields."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import yaml
from pydantic import BaseModel

from detector.config.schema import Config
from detector.utils.names import quoted


def sentence(root: type[BaseModel], errors: list[dict]) -> str:
    """pydantic's errors on a `root` as one sentence: key path, what is wrong, nearest valid key or allowed values."""
    error = _nearest_miss(root, errors[:100])  # the first place is what is told of; a file may have 10,000 wrong ones
    location = _location(root, error)
    dotted = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        fields = list(_section_at(root, location[:-1]).model_fields)
        near = difflib.get_close_matches(str(location[-1]), fields, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"valid here: {', '.join(fields)}"
        return f"unknown key `{dotted}`; {hint}"
    if error["type"] == "missing":
        return f"`{dotted}` is required"
    if error["type"] == "value_error":
        return f"`{dotted}`: {error['ctx']['error']}"
    return f"`{dotted}`: {error['msg'][0].lower()}{error['msg'][1:]}, got {quoted(error['input'])}"


def reference_lines(section: type[BaseModel], depth: int) -> list[str]:
    """Every field of a section with its default, above it a comment that says its meaning."""
    indent = "  " * depth
    lines = []
    for name, field in section.model_fields.items():
        member = _members(field.annotation)[0]
        if isinstance(member, type) and issubclass(member, BaseModel):
            lines += ["", f"{indent}{name}:", *reference_lines(member, depth + 1)]
            continue
        lines += [f"{indent}# {' '.join(field.description.split())}"]
        default = "datasets/shapes.yaml" if field.is_required() else field.default
        value = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
        lines += [f"{indent}{name}: {value}"]
    return lines


def _nearest_miss(root: type[BaseModel], errors: list[dict]) -> dict:
    """Of the errors at the first wrong place (one for each member of a union), that of the member which was meant:
    the deepest, rather one that did not fail at the type, rather an unknown key."""
    place = _location(root, errors[0])
    there = [e for e in errors if _location(root, e)[: len(place)] == place]
    return max(
        there,
        key=lambda e: (len(_location(root, e)), not e["type"].endswith("_type"), e["type"] == "extra_forbidden"),
    )


def _location(root: type[BaseModel], error: dict) -> list[str | int]:
    """Where in the config, without the members of a union (`ShortLong`, `list[...]`) that pydantic names on the way."""
    *parents, last = error["loc"] or [""]
    known = {name for section in _sections(root) for name in section.model_fields}
    return [part for part in parents if part in known or isinstance(part, int)] + (
        [last] if last in known or isinstance(last, int) or error["type"] == "extra_forbidden" else []
    )


def _sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield section
    for field in section.model_fields.values():
        for member in _members(field.annotation):
            if isinstance(member, type) and issubclass(member, BaseModel):
                yield from _sections(member)


def _section_at(section: type[BaseModel], location: list) -> type[BaseModel]:
    for key in location:
        members = _members(section.model_fields[key].annotation)
        section = next(m for m in members if isinstance(m, type) and issubclass(m, BaseModel))
    return section


def _members(annotation: Any) -> list:
    """The types of a union, one level of Annotated and Optional opened."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [m for arg in typing.get_args(annotation) for m in _members(arg)]
    if typing.get_origin(annotation) is Annotated:
        return _members(typing.get_args(annotation)[0])
    return [annotation]


def reference() -> str:
    """Every field with its default, above it a comment that says its meaning and type: a valid config file."""
    lines = ["# yaml-language-server: $schema=config.schema.json", *reference_lines(Config, 0)]
    return "\n".join(lines) + "\n"
