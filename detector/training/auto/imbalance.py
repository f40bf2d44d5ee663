"""`imbalance: auto`: chooses loss, sampling and pasting for the classes of a training split.

A class of the tail (data/class_groups.py) has less than a tenth of the boxes of the commonest class. If no class is in
the tail, nothing changes. Otherwise:

1. Images of rare classes are drawn more often: `data.sampling: repeat_factor`, if that shows the rare classes at least
   WORTHWHILE times as often relative to the commonest. It cannot where every image has the commonest class too.
2. Classes with fewer than FEW boxes are pasted too, if there are crops of them: only those, because pasting costs the
   common classes.
3. Positives of classes that are still rare weigh more: `loss.alpha: effective_number`, from the boxes that an epoch
   shows after 1 and 2, and only in the last part of the training (DEFER). 1 / (1 - beta) is a third of the greatest
   number of boxes, or 1000 if that is more; classes with more boxes than this weigh nearly the same.

docs/imbalance.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detector.config.augment import PasteConfig
from detector.config.schema import Config, ImbalanceConfig
from detector.data.class_groups import TAIL
from detector.data.coco import CocoData
from detector.data.exposure import exposure
from detector.data.mixing.mixer import build_mixer
from detector.data.mixing.paste import Paster
from detector.data.resampling import auto_threshold, image_frequencies, image_weights
from detector.losses.class_alpha import check_one_per_class, resolve_alpha, spread, weights_of_positives
from detector.losses.classification import build_classification
from detector.utils.text import counted, shortened

WORTHWHILE = 1.5
FEW = 100  # boxes
DEFER = 0.5  # of the training: features are learnt with all classes alike (LDAM-DRW, arXiv 1906.07413)

# If the configuration gives one of these settings, the choice is not made.
SETTINGS = {
    "sampling": ("data.sampling", "data.repeat_threshold"),
    "paste": ("augment.paste",),
    "loss": ("loss.alpha", "loss.effective_beta", "loss.defer_alpha"),
}


@dataclass(frozen=True)
class Decision:
    """Some settings, dotted path → value, and the reason for them, a clause. No settings: why they stay as they are."""

    reason: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """For the log."""
        shown = ", ".join(f"{path} {_shown(value)}" for path, value in self.settings.items())
        return f"{shown}: {self.reason}" if shown else self.reason


@dataclass(frozen=True)
class ImbalanceChoice:
    """What `imbalance: auto` chose for a training split, and the counts that it went by."""

    commonest: tuple[str, int]
    """Name and boxes of the commonest class."""
    rarest: tuple[str, int]
    """Name and boxes of the rarest class that has any."""
    num_classes: int
    """Classes that have boxes."""
    tail: list[str]
    """The classes of the tail, rarest first."""
    decisions: list[Decision]
    """On sampling, pasting and loss; none where the tail is empty."""
    shown: np.ndarray
    """(K,) float64, boxes of each class in an epoch on average, as chosen."""
    head_pays: str | None
    """What the choices cost the commonest class, a sentence; None where there are none."""

    @property
    def settings(self) -> dict[str, Any]:
        """Dotted path → value of everything that was chosen."""
        return _settings(self.decisions)

    def lines(self) -> list[str]:
        """For the log."""
        (common, most), (rare, fewest) = self.commonest, self.rarest
        if not self.tail:
            return [
                f"imbalance auto: plain focal loss, uniform sampling, no pasting, unless the configuration sets them: "
                f"the rarest class, {rare} ({counted(fewest, 'box')}), has at least {TAIL:.0%} of the boxes of the "
                f"commonest, {common} ({most})"
            ]
        have = "has" if len(self.tail) == 1 else "have"
        return [
            f"imbalance auto: {len(self.tail)} of {self.num_classes} classes {have} less than {TAIL:.0%} of the boxes "
            f"of {common} ({most}): {shortened(self.tail)}",
            *(f"  {decision.line()}" for decision in self.decisions),
            *([f"  {self.head_pays}"] if self.head_pays else []),
        ]


def choose(config: Config, data: CocoData) -> ImbalanceChoice | None:
    """What suits the classes of the training split `data`; None where `config.imbalance` is none.

    Settings that the configuration gives are kept.
    """
    if config.imbalance == "none":
        return None
    may = _may_choose(config)
    counts = data.class_counts()
    names = data.class_names
    commonest = int(counts.argmax())
    rarest = int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    tail = np.flatnonzero((counts > 0) & (counts < TAIL * counts[commonest]))
    tail = tail[np.argsort(counts[tail])]
    few = [names[k] for k in sorted(tail.tolist()) if counts[k] < FEW]
    decisions, head_pays, shown = [], None, counts
    if len(tail):
        decisions = [_choose_sampling(config, data, tail, commonest, may["sampling"])]
        decisions.append(_choose_pasting(config.changed(_settings(decisions)), data, few, may["paste"]))
        shown = _boxes_per_epoch(config.changed(_settings(decisions)), data)
        decisions.append(_choose_loss(config, data.class_names, shown, may["loss"]))
        head_pays = _head_pays(names[commonest], shown[commonest] / counts[commonest])
    return ImbalanceChoice(
        commonest=(names[commonest], int(counts[commonest])),
        rarest=(names[rarest], int(counts[rarest])),
        num_classes=int((counts > 0).sum()),
        tail=[names[k] for k in tail],
        decisions=decisions,
        shown=shown,
        head_pays=head_pays,
    )


def apply(config: Config, chosen: ImbalanceChoice | None) -> Config:
    """The configuration with the choices as ordinary settings."""
    return config if chosen is None else config.changed({"imbalance": "none", **chosen.settings})


def as_chosen(config: Config, begun: Config) -> Config:
    """The configuration with what was chosen in `begun`, the resolved configuration of the run that resumes."""
    if config.imbalance == "none":
        return config
    paths = [path for choice, may in _may_choose(config).items() if may for path in SETTINGS[choice]]
    return config.changed({"imbalance": "none", **{path: _get(begun, path) for path in paths}})


def _may_choose(config: Config) -> dict[str, bool]:
    """Choice → whether to make it: not where `imbalance` forbids it or the configuration gives one of its settings."""
    allowed = config.imbalance if isinstance(config.imbalance, ImbalanceConfig) else ImbalanceConfig()
    return {
        choice: getattr(allowed, choice) and not any(_is_given(config, path) for path in paths)
        for choice, paths in SETTINGS.items()
    }


def _is_given(config: Config, path: str) -> bool:
    section, field_name = path.split(".")
    return field_name in getattr(config, section).model_fields_set


def _get(config: Config, path: str) -> Any:
    section, field_name = path.split(".")
    return getattr(getattr(config, section), field_name)


def _choose_sampling(config: Config, data: CocoData, tail: np.ndarray, commonest: int, may: bool) -> Decision:
    if not may:
        return Decision(f"data.sampling stays {config.data.sampling}, as configured")
    frequencies = image_frequencies(data)
    threshold = float(f"{auto_threshold(frequencies)[0]:.4g}")
    weights, _ = image_weights(data, "repeat_factor", threshold)
    change = exposure(data, weights).change
    gain, name = float(np.median(change[tail]) / change[commonest]), data.class_names[commonest]
    reason = f"shows the rare classes {gain:.1f} times as often, relative to {name}"
    if gain < WORTHWHILE:
        share = f"{frequencies[commonest]:.0%} of the images have {name}"
        return Decision(f"data.sampling stays uniform: repeat_factor only {reason}; {share}")
    return Decision(reason, {"data.sampling": "repeat_factor", "data.repeat_threshold": threshold})


def _choose_pasting(config: Config, data: CocoData, few: list[str], may: bool) -> Decision:
    """config: with the sampling chosen. few: the tail's classes of fewer than FEW boxes, in the order of the labels."""
    if not may:
        return Decision(f"augment.paste stays {'as configured' if config.augment.paste else 'off'}")
    if not few:
        return Decision(f"no pasting: every class has {FEW} boxes or more")
    paste = PasteConfig(classes=few, blend="clone")
    drawn = _boxes_per_epoch(config, data)
    paster = Paster(data, drawn=drawn, image_size=config.data.image_size, **paste.model_dump())
    if not paster.crops.any():
        return Decision(f"no pasting: there is no good crop of {shortened(few)}")
    if not paster.expected.any():
        return Decision(f"no pasting: {shortened(few)}: an epoch shows an equal share of the boxes already")
    return Decision(f"fewer than {FEW} boxes: pasting shows them in other surroundings too", {"augment.paste": paste})


def _choose_loss(config: Config, class_names: list[str], shown: np.ndarray, may: bool) -> Decision:
    """class_names: K. shown: (K,) boxes of each class in an epoch."""
    if not may:
        return Decision("loss stays as configured")
    beta = max(config.loss.effective_beta, float(f"{1 - 3 / shown.max():.6g}"))
    settings = {"loss.alpha": "effective_number", "loss.effective_beta": beta, "loss.defer_alpha": DEFER}
    check_one_per_class(config.loss, len(shown), class_names)
    built = build_classification(config.loss, resolve_alpha(config.loss, shown), len(shown))
    if built.balances_classes or not built.takes_alpha_by_class:
        return Decision(f"loss stays as configured: {config.loss.classification} takes no weights by class")
    alphas, before = weights_of_positives(config.changed(settings).loss, built, shown)
    return Decision(
        f"positives weigh {alphas[shown > 0].min():.2f} to {alphas[shown > 0].max():.2f}, the rarer in an epoch the "
        f"more; all {spread(before)} until {DEFER:.0%} of the training are over",
        settings,
    )


def _head_pays(name: str, times: float) -> str:
    """times: how often an epoch shows the commonest class, relative to the data."""
    return (
        f"what {name} pays: an epoch shows it {times:.2f} times as often; where this was measured, the head lost less "
        "than 1 AP (docs/imbalance.md)"
    )


def _settings(decisions: list[Decision]) -> dict[str, Any]:
    return {path: value for decision in decisions for path, value in decision.settings.items()}


def _boxes_per_epoch(config: Config, data: CocoData) -> np.ndarray:
    """(K,) float64: boxes of each class that an epoch shows on average."""
    weights, _ = image_weights(data, config.data.sampling, config.data.repeat_threshold)
    return build_mixer(config, data, weights).shown


def _shown(value: Any) -> str:
    if isinstance(value, PasteConfig):
        return shortened(list(value.classes))
    return f"{value:g}" if isinstance(value, float) else str(value)
