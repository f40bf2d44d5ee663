"""YAML as people write it: 1e-3 is a number, a key stands once, and a file that is wrong is one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as YAML 1.2 does (PyYAML: as a string), and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(f"key `{key.value}` stands twice, again in line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(text: str) -> Any:
    """Parse YAML. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, _Loader)
    except (ValueError, RecursionError) as problem:  # a date like 2024-13-45; brackets thousands deep
        raise yaml.YAMLError(str(problem)) from None


def read_yaml_file(path: Path, what: str) -> dict:
    """The mapping in a file, which is `what` (for messages). Raises InputError."""
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = did_you_mean(path.name, sorted(p.name for p in path.parent.glob("*.yaml")))
        raise InputError(f"{path}: no such {what}; {near}") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{path}: cannot be read as text ({problem})") from None
    except yaml.YAMLError as problem:
        raise InputError(f"{path}: not valid YAML, {' '.join(str(problem).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a {what} has `key: value` lines, this is {type(tree).__name__}")
    return tree
