"""What to train with: settings for a dataset, each with its reason from the data, and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.doctor.advice.config_text import config_lines
from detector.doctor.advice.setting import Setting, to_config
from detector.doctor.class_balance import ClassReport
from detector.doctor.reach.reach import Reach
from detector.training.auto import imbalance
from detector.utils.text import shortened

FEW = 10  # boxes: a class with fewer is neither learnt nor measured
# Reasons of settings that only belong to the first setting of a decision on imbalance.
COMPANIONS = {
    "loss.effective_beta": "tells counts apart up to a third of the commonest class's, or up to 1000",
    "loss.defer_alpha": "until this part of the training is over, all classes weigh the same",
    "data.repeat_threshold": "classes in a smaller share of the images than this are repeated",
}


@dataclass(frozen=True)
class Advice:
    """What to train with. `config` has `settings`, and the defaults for all others."""

    config: Config
    settings: list[Setting]  # in the order of the file
    notes: list[str]  # sentences: what needs no setting, and what no setting cures

    def lines(self) -> list[str]:
        """For the console: the config file, and the notes."""
        return [f"  {line}" for line in [*config_lines(self.settings), *self.notes]]


def advise(
    recipe: list[Setting],
    train: CocoData,
    val: CocoData | None,
    *,
    classes: ClassReport,
    reach: Reach,
    bad_boxes: Mapping[str, int],
    hints: Sequence[str] = (),
) -> Advice:
    """Complete a `recipe` by what classes, anchors and bad boxes call for.

    val: None if there is none. classes, reach: of `train`, at the image size of `recipe`. bad_boxes: split → boxes in
    its annotation file that training refuses. hints: further notes.
    """
    settings = [*recipe, *_anchors(reach), *_bad_boxes(bad_boxes)]
    chosen, notes = _imbalance(to_config(settings), train)
    section = {name: place for place, name in enumerate(Config.model_fields)}
    settings = sorted([*settings, *chosen], key=lambda setting: section[setting.path.split(".")[0]])
    return Advice(to_config(settings), settings, [*notes, *hints, *_too_few_boxes(train, val, classes)])


def _anchors(reach: Reach) -> list[Setting]:
    """The proposed anchors, if there are any: only what differs from the configured ones."""
    proposal = reach.proposal
    if proposal is None:
        return []
    before, after = reach.anchors.model_dump(), proposal.anchors.model_dump()
    changed = {key: _shortest(value) for key, value in after.items() if value != before[key]}
    gain = np.nan_to_num(proposal.after - proposal.before) * np.sqrt(reach.boxes)
    k = int(gain.argmax())
    why = (
        f"reach {proposal.after[k]:.0%} of {reach.class_names[k]} with an IoU of {reach.assigner.positive_iou:g} or "
        f"more, instead of {proposal.before[k]:.0%}; and {proposal.mean_after:.0%} of all, instead of "
        f"{proposal.mean_before:.0%} (classes balanced)"
    )
    return [Setting("model.anchors", changed, why)]


def _shortest(value: Any) -> Any:
    """16 for 16.0, which is easier to read in a file."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _bad_boxes(bad_boxes: Mapping[str, int]) -> list[Setting]:
    counts = " and ".join(f"{count} in {split}" for split, count in bad_boxes.items() if count)
    if not counts:
        return []
    return [Setting("data.bad_annotations", "drop", f"boxes of zero size, NaN or outside their image: {counts}")]


def _imbalance(config: Config, train: CocoData) -> tuple[list[Setting], list[str]]:
    """What `imbalance: auto` chooses for `config`: its settings, and notes on what it left as it is."""
    chosen = imbalance.choose(config.changed({"imbalance": "auto"}), train)
    assert chosen is not None
    settings: list[Setting] = []
    notes = chosen.lines()[:1]
    for decision in chosen.decisions:
        for path, value in decision.settings.items():
            plain = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
            settings.append(Setting(path, plain, COMPANIONS.get(path, decision.reason)))
        if not decision.settings:
            notes.append(decision.reason)
    return settings, notes + ([chosen.head_pays] if chosen.head_pays else [])


def _too_few_boxes(train: CocoData, val: CocoData | None, classes: ClassReport) -> list[str]:
    """Notes on classes with fewer than FEW boxes."""
    notes = []
    few = [classes.class_names[k] for k in classes.order if classes.boxes[k] < FEW]
    if few:
        notes.append(f"fewer than {FEW} boxes of {shortened(few)}: no setting makes up for missing data; annotate more")
    if val is not None:
        measured = val.class_counts()
        poor = [train.class_names[k] for k in classes.order if classes.boxes[k] and measured[k] < FEW]
        if poor:
            notes.append(f"val has fewer than {FEW} boxes of {shortened(poor)}: conclude nothing from their AP")
    return notes
