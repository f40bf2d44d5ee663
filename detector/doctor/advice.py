"""So use this: settings for a dataset, each with its reason from the data, and the file that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detector.config import Config


@dataclass(frozen=True)
class Setting:
    """A setting, its value, and why."""

    path: str  # dotted, as in an override: data.image_size
    value: Any  # of YAML's types
    reason: str  # without a line break


@dataclass(frozen=True)
class Advice:
    """What to train with. `config` is what `settings` make of the defaults."""

    config: Config
    settings: list[Setting]  # in the order of the file
    notes: list[str]  # sentences on what no setting cures, and on what comes close
