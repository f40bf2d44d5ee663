"""Which table holds the names that a setting may have: for early errors, and for `tools/train.py --show-config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detector.config.schema import Config
from detector.data.resampling import SAMPLING
from detector.data.transforms import PRESETS
from detector.losses.assigners import ASSIGNERS
from detector.losses.box import BOX_LOSSES
from detector.losses.classification import CLASSIFICATION_LOSSES
from detector.models.necks import NECKS
from detector.utils.nearest import lookup

TABLES: dict[str, Mapping[str, Any]] = {
    "augment.transforms": PRESETS,
    "data.sampling": SAMPLING,
    "loss.assigner.name": ASSIGNERS,
    "loss.box": BOX_LOSSES,
    "loss.classification": CLASSIFICATION_LOSSES,
    "model.neck.name": NECKS,
}


def names() -> dict[str, list[str]]:
    """Dotted path → the names that may stand there."""
    return {path: list(table) for path, table in TABLES.items()}


def check_choices(config: Config) -> None:
    """Raises InputError, with the nearest name, where a setting names nothing in its table."""
    for path, table in TABLES.items():
        value: Any = config
        for key in path.split("."):
            value = getattr(value, key)
        if isinstance(value, str):
            lookup(table, value, path)
