"""`imbalance: auto`: which loss, sampling and pasting suit the classes of a training split, by the rules stated here.

A class of the tail has less than TAIL of the boxes of the commonest class. Without one, nothing is changed. Else:

1. The positives of rare classes weigh more: `loss.alpha: effective_number`.
2. Their images are drawn more often, `data.sampling: repeat_factor`, if that shows them at least WORTHWHILE times as
   often relative to the commonest class. Where every image has that one too, it does not.
3. Where sampling does not raise them, classes with fewer than FEW boxes are pasted, if there are crops.

docs/imbalance.md has the measurements behind it: 1 alone helped most, 2 added to it, and with 3 on top of both, common
classes lost more than rare ones won.
"""

from __future__ import annotations

import numpy as np

from detector.config import Config, ImbalanceConfig, PasteConfig
from detector.data.coco import CocoData
from detector.data.exposure import exposure
from detector.data.paste import Paster
from detector.data.resampling import auto_threshold, image_frequencies, repeat_factors, repeat_weights
from detector.utils.names import shortened

TAIL = 0.1  # of the boxes of the commonest class
WORTHWHILE = 1.5
FEW = 100  # boxes

# What each choice sets, as section and field.
SETTINGS = {
    "loss": (("loss", "classification"), ("loss", "alpha")),
    "sampling": (("data", "sampling"), ("data", "repeat_threshold")),
    "paste": (("augment", "paste"),),
}


def choose(config: Config, data: CocoData) -> list[str]:
    """Set loss, sampling and pasting of `config` for the training split `data`, where `config.imbalance` says so.

    What the configuration sets itself is kept. `config.imbalance` is `none` afterwards: what was chosen are settings as
    any other. Returns what was chosen and why, a line each, for the log; none where there is nothing to choose.
    """
    if config.imbalance == "none":
        return []
    may = _may_choose(config)
    config.imbalance = "none"
    counts = data.class_counts()
    commonest = int(counts.argmax())
    tail = np.flatnonzero((counts > 0) & (counts < TAIL * counts[commonest]))
    if not len(tail):
        rarest = int(np.where(counts > 0, counts, counts.max() + 1).argmin())
        return [
            f"imbalance auto: plain focal loss, uniform sampling and no pasting, but for what the configuration sets: "
            f"the rarest class, {data.class_names[rarest]} ({counts[rarest]} boxes), has not less than {TAIL:.0%} of "
            f"the boxes of the commonest, {data.class_names[commonest]} ({counts[commonest]})"
        ]
    names = shortened([data.class_names[k] for k in tail[np.argsort(counts[tail])]])
    loss = _choose_loss(config, may["loss"])
    reached, sampling = _choose_sampling(config, data, tail, commonest, may["sampling"])
    pasting = _choose_pasting(config, data, tail, reached, may["paste"])
    return [
        f"imbalance auto: {len(tail)} of {(counts > 0).sum()} classes have less than {TAIL:.0%} of the boxes of "
        f"{data.class_names[commonest]} ({counts[commonest]}): {names}",
        *(f"  {line}" for line in (loss, sampling, pasting)),
    ]


def take_over(config: Config, chosen: Config) -> None:
    """Set in `config` what `choose` had set in `chosen`, the configuration of the run that goes on."""
    if config.imbalance == "none":
        return
    for choice, may in _may_choose(config).items():
        for section, field in SETTINGS[choice] if may else ():
            setattr(getattr(config, section), field, getattr(getattr(chosen, section), field))
    config.imbalance = "none"


def _may_choose(config: Config) -> dict[str, bool]:
    """choice → whether it is to be made: it is not forbidden, and no setting of it is in the configuration."""
    allowed = ImbalanceConfig() if config.imbalance == "auto" else config.imbalance
    return {
        choice: getattr(allowed, choice)
        and not any(field in getattr(config, section).model_fields_set for section, field in settings)
        for choice, settings in SETTINGS.items()
    }


def _choose_loss(config: Config, may: bool) -> str:
    """A line for the log on `loss.alpha`, perhaps set here."""
    if not may:
        return "loss stays as the configuration has it"
    config.loss.alpha = "effective_number"
    return "loss.alpha effective_number: positives of rare classes weigh more, all together as much as before"


def _choose_sampling(config: Config, data: CocoData, tail: np.ndarray, commonest: int, may: bool) -> tuple[bool, str]:
    """Whether the sampling of the configuration, perhaps chosen here, reaches the tail, and a line for the log."""
    if not may:
        reached = config.data.sampling != "uniform"
        return reached, f"data.sampling stays {config.data.sampling}, as the configuration has it"
    frequencies = image_frequencies(data)
    threshold, _ = auto_threshold(frequencies)
    change = exposure(data, repeat_weights(data, repeat_factors(frequencies, threshold))).change
    gain = float(np.median(change[tail]) / change[commonest])
    reason = f"it shows the rare classes {gain:.1f} times as often, relative to {data.class_names[commonest]}"
    if gain < WORTHWHILE:
        together = f"{frequencies[commonest]:.0%} of the images have {data.class_names[commonest]}"
        return False, f"data.sampling uniform: of repeat_factor, {reason}; {together}"
    config.data.sampling, config.data.repeat_threshold = "repeat_factor", float(f"{threshold:.4g}")
    return True, f"data.sampling repeat_factor, data.repeat_threshold {threshold:.4g}: {reason}"


def _choose_pasting(config: Config, data: CocoData, tail: np.ndarray, reached: bool, may: bool) -> str:
    """A line for the log on `augment.paste`, perhaps set here; not where the sampling has `reached` the tail."""
    if not may:
        return f"augment.paste stays {'as the configuration has it' if config.augment.paste else 'off'}"
    if reached:
        return "no pasting: sampling raises the rare classes already, and all together cost the common ones too much"
    counts, names = data.class_counts(), data.class_names
    few = [names[k] for k in tail if counts[k] < FEW]
    if not few:
        return f"no pasting: every class has {FEW} boxes or more"
    paste = PasteConfig(classes=few)
    crops = Paster(data, **paste.model_dump()).crops
    if not crops[[names.index(name) for name in few]].any():
        return f"no pasting: there is no good crop of {shortened(few)}"
    config.augment.paste = paste
    return f"augment.paste {shortened(few)}: fewer than {FEW} boxes, so they are shown in other surroundings too"
