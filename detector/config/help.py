"""What is said about settings: one sentence on what is wrong with them, and the reference of them all."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from detector.config.schema import Config
from detector.utils.text import quoted

_NAME = re.compile(r"[\w/.-]{1,80}")  # of an assigner, a neck, a backbone ...
MOST_ERRORS = 100  # only the first is told, and a file may have 10,000


def sentence(root: type[BaseModel], errors: Sequence[ErrorDetails]) -> str:
    """pydantic's errors on a `root` as one sentence: dotted path, what is wrong, nearest key or allowed values."""
    error = _nearest_miss(root, errors[:MOST_ERRORS])
    location = _location(root, error)
    dotted = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        return f"unknown key `{dotted}`; {_hint(root, location)}"
    if error["type"] == "missing":
        return f"`{dotted}` is required"
    if error["type"] == "model_type" and _is_name_of(root, location, error["input"]):
        name, key = error["input"], location[-1]
        return f"`{dotted}` is a section; write `{dotted}.name={name}`, in a file `{key}: {{name: {name}}}`"
    if error["type"] == "value_error":
        return f"`{dotted}`: {error['ctx']['error']}"
    return f"`{dotted}`: {error['msg'][0].lower()}{error['msg'][1:]}, got {quoted(error['input'])}"


def reference(choices: Mapping[str, Sequence[str]]) -> str:
    """Every field with its default, above it a comment with its meaning: a valid config file.

    choices: dotted path → the names that may stand there (inference/config_check.py).
    """
    lines = ["# yaml-language-server: $schema=config.schema.json", *_reference_lines(Config, "", choices)]
    return "\n".join(lines) + "\n"


def json_schema(choices: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The JSON Schema of the settings, for completion in an editor. choices: as for `reference`."""
    schema = Config.model_json_schema()
    base = {"type": "string", "description": "Config file that this one changes."}
    schema["properties"] = {"base": base, **schema["properties"]}
    schema.pop("required", None)  # the base may have it
    for path, names in choices.items():
        *parents, leaf = path.split(".")
        section = _section_at(Config, list(parents)).__name__
        field = schema["$defs"][section]["properties"][leaf]
        text = field if field.get("type") == "string" else next(o for o in field["anyOf"] if o.get("type") == "string")
        text["enum"] = list(names)
    return schema


def _reference_lines(section: type[BaseModel], prefix: str, choices: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines of a section. prefix: its dotted path and a dot; nothing for the root."""
    indent = "  " * prefix.count(".")
    lines = []
    for name, field in section.model_fields.items():
        member = _members(field.annotation)[0]
        if isinstance(member, type) and issubclass(member, BaseModel):
            lines += ["", f"{indent}{name}:", *_reference_lines(member, f"{prefix}{name}.", choices)]
            continue
        names = choices.get(prefix + name)
        allowed = f" One of: {', '.join(names)}." if names else ""
        lines += [f"{indent}# {' '.join((field.description or '').split())}{allowed}"]
        default = "datasets/shapes.yaml" if field.is_required() else field.default
        value = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
        lines += [f"{indent}{name}: {value}"]
    return lines


def _hint(root: type[BaseModel], location: Sequence[str | int]) -> str:
    """The nearest valid key of the section; else the same key where another section has it; else the valid keys."""
    name, fields = str(location[-1]), list(_section_at(root, location[:-1]).model_fields)
    near = difflib.get_close_matches(name, fields, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    paths = list(_paths(root))
    elsewhere = []
    for path in paths:
        if path.split(".")[-1] == name:
            keys = [p.rpartition(".")[2] for p in paths if p.rpartition(".")[0] == path]
            elsewhere.append(f"`{path}`" + (f" ({', '.join(keys)})" if keys else ""))
    return f"did you mean {' or '.join(elsewhere)}?" if elsewhere else f"valid here: {', '.join(fields)}"


def _is_name_of(root: type[BaseModel], location: Sequence[str | int], value: Any) -> bool:
    """Whether `value`, which stands in place of a section, can be meant as the section's `name`."""
    return (
        isinstance(value, str)
        and _NAME.fullmatch(value) is not None
        and "name" in _section_at(root, location).model_fields
    )


def _nearest_miss(root: type[BaseModel], errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """pydantic reports one error for each type of a union. The one to show, of those at the first wrong place: the
    deepest, then one that is not about the type, then an unknown key."""
    place = _location(root, errors[0])
    there = [e for e in errors if _location(root, e)[: len(place)] == place]
    return max(
        there,
        key=lambda e: (len(_location(root, e)), not e["type"].endswith("_type"), e["type"] == "extra_forbidden"),
    )


def _location(root: type[BaseModel], error: ErrorDetails) -> list[str | int]:
    """Where in the settings, without the types of a union (`ShortLong`, `list[...]`) that pydantic puts between."""
    *parents, last = error["loc"] or [""]
    known = {name for section in _sections(root) for name in section.model_fields}
    return [part for part in parents if part in known or isinstance(part, int)] + (
        [last] if last in known or isinstance(last, int) or error["type"] == "extra_forbidden" else []
    )


def _paths(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted path of every section and field."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for member in _members(field.annotation):
            if isinstance(member, type) and issubclass(member, BaseModel):
                yield from _paths(member, f"{prefix}{name}.")


def _sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield section
    for field in section.model_fields.values():
        for member in _members(field.annotation):
            if isinstance(member, type) and issubclass(member, BaseModel):
                yield from _sections(member)


def _section_at(section: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel]:
    for key in map(str, location):
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
