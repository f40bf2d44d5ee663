"""Settings as they are written: YAML files on top of one another, and `dotted.path=value`."""

from __future__ import annotations

import typing
from pathlib import Path

import yaml
from pydantic import ValidationError

from detector.config.help import sentence
from detector.config.schema import Config
from detector.models.limits import check_size
from detector.utils.errors import InputError
from detector.utils.names import quoted
from detector.utils.untrusted.yaml import read_yaml, read_yaml_file


def read_with_base(path: Path, child: Path | None = None) -> dict:
    """The settings of a file on top of those of its `base:`. child: the file whose base this is. Raises InputError."""
    tree = read_yaml_file(path, "config file")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if child is not None:
        raise InputError(f"{path}: `base: {base}` here too, below {child}; one base at most, so copy its lines")
    if not isinstance(base, str):
        raise InputError(f"{path}: base: must be the name of one file, got {quoted(base)}")
    return _merge(read_with_base(path.parent / base, child=path), tree)


def _merge(base: dict, over: dict) -> dict:
    """`over` on top of `base`, section by section; {short, long} replaces a number and the reverse."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def apply_override(tree: dict, override: str) -> None:
    """Set one `dotted.path=value` in place. Raises InputError."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise InputError(f"{override!r}: an override reads dotted.path=value, e.g. train.epochs=24")
    try:
        value = read_yaml(text)
    except yaml.YAMLError:
        raise InputError(f"{override!r}: {text!r} is not a YAML value") from None
    if isinstance(value, dict) and any(entry is None and ":" in str(key) for key, entry in value.items()):
        raise InputError(f"{override!r}: in YAML a space follows the colon, {{a: b}}; quote the whole for the shell")
    *parents, leaf = dotted.split(".")
    for key in parents:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[leaf] = value


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Read an experiment file, its `base:`, and `dotted.path=value` overrides into a validated Config.

    Raises InputError (one sentence: file, key path, nearest valid key or the allowed values) on anything wrong.
    """
    path = Path(path)
    config = validate(read_with_base(path), str(path), overrides)
    if config.output_dir is None:
        config.output_dir = str(Path("runs") / path.stem)
    return config


def validate(tree: dict, source: str, overrides: typing.Sequence[str] = ()) -> Config:
    """A nested dict (from `source`, named in errors), with overrides, as a Config. Raises InputError."""
    for override in overrides:
        apply_override(tree, override)
    try:
        config = Config.model_validate(tree)
        check_size(config)
    except ValidationError as problem:
        raise InputError(f"{source}: {sentence(Config, problem.errors())}") from None
    except InputError as problem:
        raise InputError(f"{source}: {problem}") from None
    return config


def dump(config: Config) -> str:
    """The whole configuration as YAML that `load_config` reads back to the same Config."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)
