"""What the schema cannot check in a configuration: names in the tables of other packages, and sizes that multiply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detector.config.schema import Config
from detector.data.resampling import SAMPLING
from detector.data.transforms import PRESETS
from detector.losses.assigners import ASSIGNERS
from detector.losses.box import BOX_LOSSES
from detector.losses.classification import CLASSIFICATION_LOSSES
from detector.models.attention import ATTENTIONS
from detector.models.limits import check_size
from detector.models.necks import NECKS
from detector.utils.nearest import lookup

TABLES: dict[str, Mapping[str, Any]] = {
    "augment.transforms": PRESETS,
    "data.sampling": SAMPLING,
    "loss.assigner.name": ASSIGNERS,
    "loss.box": BOX_LOSSES,
    "loss.classification": CLASSIFICATION_LOSSES,
    "model.attention.name": ATTENTIONS,
    "model.neck.name": NECKS,
}


def choices() -> dict[str, list[str]]:
    """Dotted path → the names that may stand there, for `tools/train.py --show-config`."""
    return {path: list(table) for path, table in TABLES.items()}


def check_config(config: Config) -> None:
    """Raises InputError as `check_names` does; and where the settings together ask for more than any machine has
    (models/limits.py). Every tool calls this before it reads data."""
    check_names(config)
    check_size(config, num_classes=1)


def check_names(config: Config) -> None:
    """Raises InputError, with the nearest name, where a setting names nothing in its table."""
    for path, table in TABLES.items():
        value: Any = config
        for key in path.split("."):
            value = getattr(value, key)
        if isinstance(value, str):
            lookup(table, value, path)
