"""The advice as a config file: YAML with the reason of every setting as a comment on its line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from detector.doctor.advice.setting import Setting, to_tree
from detector.utils.errors import InputError

SECTION_COMMENTS = {
    "data": "what is read, and how large",
    "augment.transforms": "how the images are varied, in this order",
    "augment": "how the images are varied",
    "model": "the network",
    "loss": "what it learns by",
    "train": "how long, and in which steps",
}


def config_lines(settings: Sequence[Setting]) -> list[str]:
    """The settings as lines of YAML, each with a comment."""
    return _section_lines(to_tree(settings), "", 0, {setting.path: setting.reason for setting in settings})


def write_config(settings: Sequence[Setting], dataset: str, path: Path) -> None:
    """Write the settings as a config file, which `load_config` reads back. Raises InputError if the file exists."""
    head = f"# What tools/doctor.py advises for {_one_line(dataset)}: each line with its reason from the data."
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write("\n".join([head, *config_lines(settings)]) + "\n")
    except FileExistsError:
        raise InputError(f"{path}: exists already; give another name, or remove it first") from None


def one_line_yaml(value: Any, **options: Any) -> str:
    """A value as YAML on one line. options: of yaml.safe_dump."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9, **options)
    return text.removesuffix("\n").removesuffix("\n...")


def _section_lines(tree: dict, parent: str, depth: int, reasons: dict[str, str]) -> list[str]:
    """parent: dotted path of the section, with a dot at its end. reasons: dotted path → reason."""
    lines, indent = [], "  " * depth
    for key, value in tree.items():
        path = f"{parent}{key}"
        if path in reasons:
            lines.append(f"{indent}{key}: {_value(value)} # {_one_line(reasons[path])}")
            continue
        lines.append(f"{indent}{key}: # {SECTION_COMMENTS[path]}")
        if isinstance(value, list):
            why = [_one_line(reasons[f"{path}[{i}]"]) for i in range(len(value))]
            lines += [f"{indent}  - {_value(entry)} # {reason}" for entry, reason in zip(value, why, strict=True)]
        else:
            lines += _section_lines(value, f"{path}.", depth + 1, reasons)
    return lines


def _value(value: Any) -> str:
    return one_line_yaml(value, allow_unicode=True)


def _one_line(text: str) -> str:
    """Class names and paths are in it, and a line break in them would end the comment."""
    return " ".join(text.split())
