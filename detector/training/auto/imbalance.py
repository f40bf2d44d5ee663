"""`imbalance: auto`: which loss, sampling and pasting suit the classes of a training split, by the rules stated here.

A class of the tail (data/class_groups.py) has less than a tenth of the boxes of the commonest class. Without one,
nothing is changed. Else:

1. The positives of rare classes weigh more: `loss.alpha: effective_number`, with a beta that tells counts apart up to
   a third of the commonest class's, or the default's 1000.
2. Their images are drawn more often, `data.sampling: repeat_factor`, if that shows them at least WORTHWHILE times as
   often relative to the commonest class. Where every image has that one too, it does not.
3. Classes with fewer than FEW boxes are pasted too, if there are crops: only those, as it costs the common ones.

docs/imbalance.md has the measurements behind it: each of the three raised the tail further.
"""

from __future__ import annotations

import numpy as np

from detector.config.schema import Config, ImbalanceConfig, PasteConfig
from detector.data.class_groups import TAIL
from detector.data.coco import CocoData
from detector.data.exposure import exposure
from detector.data.mixing.paste import Paster
from detector.data.resampling import auto_threshold, image_frequencies, image_weights
from detector.losses.class_alpha import resolve_alpha
from detector.losses.classification.focal import ALPHA
from detector.utils.names import shortened

WORTHWHILE = 1.5
FEW = 100  # boxes

# What each choice sets, as section and field.
SETTINGS = {
    "loss": (("loss", "classification"), ("loss", "alpha"), ("loss", "effective_beta")),
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
    loss = _choose_loss(config, counts, may["loss"])
    sampling = _choose_sampling(config, data, tail, commonest, may["sampling"])
    pasting = _choose_pasting(config, data, [data.class_names[k] for k in tail if counts[k] < FEW], may["paste"])
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


def _choose_loss(config: Config, counts: np.ndarray, may: bool) -> str:
    """A line for the log on `loss.alpha`, perhaps set here."""
    if not may:
        return "loss stays as the configuration has it"
    loss = config.loss
    loss.alpha = "effective_number"
    loss.effective_beta = max(loss.effective_beta, float(f"{1 - 3 / counts.max():.6g}"))
    alphas = np.array(resolve_alpha(loss.alpha, loss.effective_beta, counts))[counts > 0]
    return (
        f"loss.alpha effective_number, loss.effective_beta {loss.effective_beta:g}: positives weigh "
        f"{alphas.min():.2f} to {alphas.max():.2f}, the rarer the more, on average {ALPHA} as before"
    )


def _choose_sampling(config: Config, data: CocoData, tail: np.ndarray, commonest: int, may: bool) -> str:
    """A line for the log on `data.sampling` and `data.repeat_threshold`, perhaps set here."""
    if not may:
        return f"data.sampling stays {config.data.sampling}, as configured"
    frequencies = image_frequencies(data)
    threshold = float(f"{auto_threshold(frequencies)[0]:.4g}")
    weights, _ = image_weights(data, "repeat_factor", threshold)
    change = exposure(data, weights).change
    gain, name = float(np.median(change[tail]) / change[commonest]), data.class_names[commonest]
    reason = f"shows the rare classes {gain:.1f} times as often, relative to {name}"
    if gain < WORTHWHILE:
        share = f"{frequencies[commonest]:.0%} of the images have {name}"
        return f"data.sampling uniform: repeat_factor only {reason}; {share}"
    config.data.sampling, config.data.repeat_threshold = "repeat_factor", threshold
    return f"data.sampling repeat_factor, data.repeat_threshold {threshold}: {reason}"


def _choose_pasting(config: Config, data: CocoData, few: list[str], may: bool) -> str:
    """A line for the log on `augment.paste`, perhaps set here. few: the classes with fewer than FEW boxes."""
    if not may:
        return f"augment.paste stays {'as configured' if config.augment.paste else 'off'}"
    if not few:
        return f"no pasting: every class has {FEW} boxes or more"
    paste = PasteConfig(classes=few, blend="clone")
    crops = Paster(data, **paste.model_dump()).crops
    if not crops.any():
        return f"no pasting: there is no good crop of {shortened(few)}"
    config.augment.paste = paste
    return f"augment.paste {shortened(few)}: with fewer than {FEW} boxes, they are to be seen in other surroundings too"
