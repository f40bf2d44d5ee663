"""Reading YAML from anywhere: plain data only, no more of it than the file is long, and errors of one sentence.

This is PyYAML's SafeLoader with the numbers of YAML 1.2 and without duplicate keys. ruamel.yaml has both, but needs the
same guards against aliases, depth, long numbers and wrong tags, is 40 % slower, and reads `no` as text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from detector.utils.errors import InputError
from detector.utils.nearest import nearest_file
from detector.utils.text import quoted

MAX_BYTES = 1 << 19  # of a file: PyYAML takes up to 12 s for this much; a list of 10,000 classes has half of it
MAX_DEPTH = 50  # of nested lists and mappings; a configuration has 6
MAX_VALUES = 300_000  # with every alias replaced by what it stands for; a file of MAX_BYTES may have as many
MAX_DIGITS = 100  # of a number: Python takes quadratic time for them, and refuses to print more than 4300


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, as YAML 1.2 does, and refuses duplicate keys and very long numbers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {_line(key)}: a key is a list or a mapping; it must be text")
            if key.value in seen:
                raise yaml.YAMLError(f"key `{key.value}` stands twice, again in line {_line(key)}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        if len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"line {_line(node)}: a number of {len(node.value)} characters")
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


def read_yaml(text: str) -> Any:
    """Parse YAML into dicts, lists, text, numbers, bools and dates. Raises yaml.YAMLError."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_extent(node, {})
        return loader.construct_document(node)
    except yaml.YAMLError:
        raise
    except RecursionError:
        raise yaml.YAMLError("lists or mappings are nested too deep") from None
    except ValueError as problem:  # a date like 2024-13-45
        raise yaml.YAMLError(str(problem)) from None
    except Exception:  # PyYAML assumes that a tag fits its text: `!!bool x` is a KeyError, `!!timestamp x` another
        raise yaml.YAMLError("a value is not of the type that its tag (`!!`) says") from None
    finally:
        if loader is not None:
            loader.dispose()


def read_yaml_file(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a file. Raises InputError.

    what: the kind of file, for messages, such as "config file".
    """
    tree = _parse_file(path, what)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a {what} has `key: value` lines, this is {type(tree).__name__}")
    for key in tree:
        if not isinstance(key, str):
            raise InputError(f"{path}: key {quoted(key)} is not text; quote it if it is meant so")
    return tree


def _parse_file(path: Path, what: str) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES >> 10} kB, too large for a {what}")
        return read_yaml(content.decode())
    except FileNotFoundError:
        raise InputError(f"{path}: no such {what}; {nearest_file(path, '*.yaml')}") from None
    except InputError:
        raise
    except (OSError, ValueError) as problem:  # ValueError: the path has a null byte, or the content is not UTF-8
        raise InputError(f"{path}: cannot be read as text ({problem})") from None
    except yaml.YAMLError as problem:
        raise InputError(f"{path}: not valid YAML, {problem}") from None


def _check_extent(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """The number of values in a node and its depth. An alias counts as the values that it stands for.

    known: the results of nodes, by id; (0, 0) while a node is being counted. Raises yaml.YAMLError beyond the limits
    and for a node within itself.
    """
    if known.get(id(node)) == (0, 0):
        raise yaml.YAMLError(f"line {_line(node)}: an alias inside of what it stands for")
    if id(node) not in known:
        known[id(node)] = 0, 0
        children = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in children for child in pair]
        extents = [_check_extent(child, known) for child in children]
        values, depth = 1 + sum(v for v, _ in extents), 1 + max((d for _, d in extents), default=0)
        if values > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES} values, aliases (`*name`) replaced by what they stand for")
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"lists or mappings are nested more than {MAX_DEPTH} deep")
        known[id(node)] = values, depth
    return known[id(node)]


def _line(node: yaml.Node) -> int:
    """The line where a node begins, from 1."""
    return node.start_mark.line + 1
