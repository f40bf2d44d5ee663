"""YAML as people write it: 1e-3 is a number, a key stands once, and a file that is wrong is one sentence.

A file may come from anywhere: it makes plain data only (no tag creates an object), and no more of it than it is long.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from detector.utils.errors import InputError
from detector.utils.names import quoted
from detector.utils.nearest import did_you_mean

MAX_BYTES = 1 << 19  # of a file: PyYAML takes up to 12 s for this much; a list of 10,000 classes has half of it
MAX_DEPTH = 50  # of lists and mappings in one another; a configuration has 6
MAX_VALUES = 300_000  # once every alias is replaced by what it stands for; a file of MAX_BYTES may have as many
MAX_DIGITS = 100  # of a number: Python takes quadratic time for them, and refuses to print more than 4300


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as YAML 1.2 does (PyYAML: as a string), and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: a key is a list or a mapping; it must be text")
            if key.value in seen:
                raise yaml.YAMLError(f"key `{key.value}` stands twice, again in line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.Node) -> int | float:
        if len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a number of {len(node.value)} characters")
        whole = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.number)


def read_yaml(text: str) -> Any:
    """Parse YAML. Raises yaml.YAMLError."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _extent(node, {})
        return loader.construct_document(node)
    except yaml.YAMLError:
        raise
    except RecursionError:
        raise yaml.YAMLError("lists or mappings too deep in one another") from None
    except ValueError as problem:  # a date like 2024-13-45
        raise yaml.YAMLError(str(problem)) from None
    except Exception:  # PyYAML trusts that a tag fits its text: `!!bool x` is a KeyError, `!!timestamp x` another
        raise yaml.YAMLError("a value is not of the type that its tag (`!!`) says") from None
    finally:
        if loader is not None:
            loader.dispose()


def read_yaml_file(path: Path, what: str) -> dict:
    """The mapping in a file, which is `what` (for messages). Raises InputError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES >> 10} kB, too large for a {what}")
        tree = read_yaml(content.decode())
    except FileNotFoundError:
        near = did_you_mean(path.name, sorted(p.name for p in path.parent.glob("*.yaml")))
        raise InputError(f"{path}: no such {what}; {near}") from None
    except InputError:
        raise
    except (OSError, ValueError) as problem:  # a name that no file can have is a ValueError, and so is no UTF-8
        raise InputError(f"{path}: cannot be read as text ({problem})") from None
    except yaml.YAMLError as problem:
        raise InputError(f"{path}: not valid YAML, {problem}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a {what} has `key: value` lines, this is {type(tree).__name__}")
    for key in tree:
        if not isinstance(key, str):
            raise InputError(f"{path}: key {quoted(key)} is not text; quote it if it is meant so")
    return tree


def _extent(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node stands for, and how deep; aliases (the same node again) count each time.

    known: the answers for nodes, by id; (0, 0) = being counted. Raises yaml.YAMLError beyond the limits.
    """
    if id(node) not in known:
        known[id(node)] = 0, 0
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        extents = [_extent(part, known) for part in parts]
        values, depth = 1 + sum(v for v, _ in extents), 1 + max((d for _, d in extents), default=0)
        if values > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES} values, aliases (`*name`) replaced by what they stand for")
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"lists or mappings more than {MAX_DEPTH} deep in one another")
        known[id(node)] = values, depth
    elif known[id(node)] == (0, 0):
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: an alias inside of what it stands for")
    return known[id(node)]
