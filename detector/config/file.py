"""Experiment files: YAML on top of its `base:`, then `dotted.path=value`, validated into a Config."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from detector.config.help import sentence
from detector.config.schema import Config, set_at
from detector.utils.errors import InputError
from detector.utils.nearest import nearest
from detector.utils.text import command, quoted, shortened
from detector.utils.untrusted.yaml import read_yaml, read_yaml_file

_OVERRIDE = re.compile(r"(\w+)[\w.]*=")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment file, its `base:`, and `dotted.path=value` overrides into a validated Config.

    A run directory stands for its config.yaml, with itself as `output_dir`, wherever it was when it was trained.
    Raises InputError, one sentence: the file, the dotted path, and the nearest valid key or the allowed values.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "config.yaml").is_file():
            raise InputError(f"{path}: a folder without config.yaml, so no run directory; name a CONFIG (YAML)")
        path, overrides = path / "config.yaml", [f"output_dir={json.dumps(str(path))}", *overrides]
    if not path.exists():
        raise InputError(f"{path}: no such config file; {_where_configs_are(path)}")
    config = validate(_read_with_base(path), str(path), overrides)
    return config if config.output_dir else config.changed({"output_dir": str(Path("runs") / path.stem)})


def validate(tree: dict, source: str, overrides: Sequence[str] = ()) -> Config:
    """A nested dict from `source`, which errors name, and overrides as a Config. Raises InputError."""
    for override in overrides:
        _apply_override(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as problem:
        raise InputError(f"{source}: {sentence(Config, problem.errors())}") from None


def dump(config: Config) -> str:
    """The whole configuration as YAML that `load_config` reads back to the same Config."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, value before, value now) of every setting that differs between two dumped configurations."""
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{path}{key}.")
        elif old != new:
            yield f"{path}{key}", old, new


def is_override(argument: str) -> bool:
    """Whether a command-line argument is a `path=value` rather than a file name, where both may stand."""
    found = _OVERRIDE.match(argument)
    return found is not None and found[1] in Config.model_fields


def _where_configs_are(missing: Path) -> str:
    """The nearest config beside the missing one or in configs/; if none is near, which there are and how to get one."""
    there = {file.name: file for folder in (Path("configs"), missing.parent) for file in sorted(folder.glob("*.yaml"))}
    near = nearest(missing.name, list(there))
    if near is not None:
        return f"did you mean {str(there[near])!r}?"
    known = f"there is: {shortened([str(file) for file in there.values()], 8)}; " if there else ""
    return f"{known}{command('tools/doctor.py', 'DATASET', '--write-config', missing)} writes one for your data"


def _read_with_base(path: Path) -> dict:
    """The settings of a file on top of those of its `base:`, which may have a base too.

    Raises InputError, also where the bases form a circle.
    """
    settings: dict = {}
    files: list[Path] = []  # from `path` down to its last base
    while True:
        tree = read_yaml_file(path, f"base of {files[-1]}" if files else "config file")
        if path.resolve() in (file.resolve() for file in files):
            circle = " → ".join(map(str, (*files, path)))
            raise InputError(f"{files[0]}: `base:` leads in a circle: {circle}")
        settings = _merge(tree, settings)
        files.append(path)
        base = settings.pop("base", None)
        if base is None:
            return settings
        if not isinstance(base, str) or not base:
            raise InputError(f"{path}: base: must be the name of one file, got {quoted(base)}")
        path = path.parent / base


def _merge(base: dict, over: dict) -> dict:
    """`over` on top of `base`, section by section; {short, long} replaces a number and the reverse."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply_override(tree: dict, override: str) -> None:
    """Set one `dotted.path=value` in place. Raises InputError."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise InputError(f"{override!r}: an override reads dotted.path=value, such as train.epochs=24")
    try:
        value = read_yaml(text)
    except yaml.YAMLError:
        raise InputError(f"{override!r}: {text!r} is not a YAML value") from None
    if isinstance(value, dict) and any(entry is None and ":" in str(key) for key, entry in value.items()):
        raise InputError(f"{override!r}: in YAML a space follows the colon, {{a: b}}; quote the whole for the shell")
    set_at(tree, dotted, value)
