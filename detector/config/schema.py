"""The settings of an experiment: typed sections, each field with its type, range, default and description.

The JSON Schema, the reference (`tools/train.py --show-config`) and the error messages are made from these fields. A
`Choice` names an entry of a table elsewhere in the package, so the names stand there: inference/config_check.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from detector.config.augment import AugmentConfig
from detector.config.data import DataConfig
from detector.config.evaluation import EvalConfig
from detector.config.loss import LossConfig
from detector.config.model import AnchorRule, ModelConfig
from detector.config.section import Name, Section
from detector.config.train import TrainConfig


class ImbalanceConfig(Section):
    """What `imbalance: auto` may choose."""

    sampling: bool = True
    """Choose data.sampling and data.repeat_threshold."""
    loss: bool = True
    """Choose loss.alpha, loss.effective_beta and loss.defer_alpha."""
    paste: bool = True
    """Choose augment.paste."""


class Config(Section):
    """One experiment."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seeds the weights, the order of the images and every augmentation."""
    output_dir: Name | None = None
    """Run directory; null: runs/<config file's stem>."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or a torch device such as cuda:1 or cpu."""
    imbalance: Literal["none", "auto"] | ImbalanceConfig = "none"
    """auto: choose sampling, loss and pasting for the classes of the training split, and print why. {paste: false}
    leaves that choice out. Settings that are given are kept. The run's config.yaml holds the choices as settings."""
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()

    @property
    def run_directory(self) -> Path:
        """`output_dir`, which `load_config` has filled in."""
        assert self.output_dir is not None
        return Path(self.output_dir)

    @property
    def deferred_epochs(self) -> int:
        """Epochs before weights by class apply (`loss.defer_alpha`); 0 if there are no such weights."""
        return math.ceil(round(self.loss.defer_alpha * self.train.epochs, 9)) if self.loss.alpha_is_by_class else 0

    def with_anchor_rule(self, rule: AnchorRule) -> Config:
        """A copy in which `rule` stands for an auto in `model.anchors.rule`."""
        return self.changed({"model.anchors.rule": rule}) if self.model.anchors.rule == "auto" else self

    @property
    def mixed_epochs(self) -> int:
        """Epochs with mosaic and mixup, all but the last part of the training (`augment.close`); 0 without either.

        That part is rounded up to whole epochs, but leaves one with them unless it is all of the training.
        """
        if not (self.augment.mosaic or self.augment.mixup):
            return 0
        closed = math.ceil(round(self.augment.close * self.train.epochs, 9))
        return max(self.train.epochs - closed, int(self.augment.close < 1))

    def changed(self, settings: Mapping[str, Any]) -> Config:
        """A copy with other values at dotted paths, such as {"train.lr": 0.1}; `self` stays as it is.

        In the copy they count as given (`model_fields_set`), as does what was given before. Raises
        pydantic.ValidationError.
        """
        tree = self.model_dump(exclude_unset=True)
        for path, value in settings.items():
            set_at(tree, path, value.model_dump() if isinstance(value, BaseModel) else value)
        return Config.model_validate(tree)


def set_at(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path of nested dicts, in place."""
    *parents, leaf = path.split(".")
    for key in parents:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[leaf] = value
