"""A setting that is advised, with its reason; and the configuration that settings make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detector.config.file import validate
from detector.config.schema import Config


@dataclass(frozen=True)
class Setting:
    """A setting, its value, and why."""

    path: str  # dotted, as in an override: data.image_size; augment.transforms[0] is an entry of a list
    value: Any  # of YAML's types
    reason: str


def to_config(settings: Sequence[Setting]) -> Config:
    """The configuration that has these settings, and the defaults for all others."""
    return validate(to_tree(settings), "the advice")


def to_tree(settings: Sequence[Setting]) -> dict:
    """The settings as nested dicts, as in a config file."""
    tree: dict = {}
    for setting in settings:
        *parents, leaf = setting.path.split(".")
        section = tree
        for key in parents:
            section = section.setdefault(key, {})
        name, is_entry, _ = leaf.partition("[")
        if is_entry:
            section.setdefault(name, []).append(setting.value)
        else:
            section[name] = setting.value
    return tree
