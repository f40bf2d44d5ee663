"""So use this: settings for a dataset, each with its reason from the data, and the file that they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.data.descriptor import Descriptor
from detector.doctor.advice.recipe import Setting, as_tree, configured
from detector.doctor.class_balance import ClassReport
from detector.doctor.reach.reach import Reach
from detector.training.auto import imbalance
from detector.utils.errors import InputError
from detector.utils.text import shortened

FEW = 10  # boxes: with fewer, a class is neither learnt nor measured
SECTIONS = {
    "data": "what is read, and how large",
    "augment.transforms": "how the images are varied, in this order",
    "augment": "what is mixed into images",
    "model": "the network",
    "loss": "what it learns by",
    "train": "how long, and in which steps",
}


@dataclass(frozen=True)
class Advice:
    """What to train with. `config` is what `settings` make of the defaults."""

    config: Config
    settings: list[Setting]  # in the order of the file
    notes: list[str]  # sentences on what is well as it is, and on what no setting cures

    def lines(self) -> list[str]:
        """For the console: the file, and the notes."""
        return [f"  {line}" for line in [*config_lines(self), *self.notes]]


def advise(
    descriptor: Descriptor, train: CocoData, val: CocoData | None, report: ClassReport, reach: Reach,
    recipe: list[Setting],
) -> Advice:  # fmt: skip
    """Complete a `recipe` by what the classes and the anchors' reach call for.

    val: None where there is none. reach: at the image size of `recipe`, whose proposal is taken.
    """
    settings = [*recipe, *_anchors(reach), *_bad_boxes(train, val)]
    config = configured(settings)
    config.imbalance = "auto"
    said = imbalance.choose(config, train)
    chosen, notes = _imbalance(config, said)
    settings += chosen
    order = {name: place for place, name in enumerate(Config.model_fields)}
    settings.sort(key=lambda setting: order[setting.path.split(".")[0]])
    return Advice(configured(settings), settings, [*notes, *_notes(train, val, report)])


def config_lines(advice: Advice) -> list[str]:
    """The settings as YAML, a comment with its reason on every line."""
    reasons = {setting.path: setting.reason for setting in advice.settings}
    return _yaml(as_tree(advice.settings), "", 0, reasons)


def write_config(advice: Advice, path: Path) -> None:
    """Write the settings as a config file that `load_config` reads back to `advice.config` (but for output_dir).

    Raises InputError where the file exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = _one_line(advice.config.data.dataset)
    head = f"# What tools/doctor.py advises for {dataset}: each line with its reason from the data."
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write("\n".join([head, *config_lines(advice)]) + "\n")
    except FileExistsError:
        raise InputError(f"{path}: exists already, and is not overwritten; give another name, or remove it") from None


def _yaml(tree: dict, parent: str, depth: int, reasons: dict[str, str]) -> list[str]:
    lines, indent = [], "  " * depth
    for key, value in tree.items():
        path = f"{parent}{key}"
        if path in reasons:
            lines.append(f"{indent}{key}: {_flow(value)} # {_one_line(reasons[path])}")
            continue
        lines.append(f"{indent}{key}: # {SECTIONS[path]}")
        if isinstance(value, list):
            lines += [
                f"{indent}  - {_flow(entry)} # {_one_line(reasons[f'{path}[{i}]'])}" for i, entry in enumerate(value)
            ]
        else:
            lines += _yaml(value, f"{path}.", depth + 1, reasons)
    return lines


def _one_line(text: str) -> str:
    """Class names are in it, and may hold what ends a comment."""
    return " ".join(text.split())


def _flow(value: Any) -> str:
    """YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _anchors(reach: Reach) -> list[Setting]:
    if reach.proposal is None:
        return []
    before, after = reach.anchors.model_dump(), reach.proposal.anchors.model_dump()
    changed = {key: value for key, value in after.items() if value != before[key]}
    whole = {key: int(value) if isinstance(value, float) and value.is_integer() else value
             for key, value in changed.items()}  # fmt: skip
    gain = np.nan_to_num(reach.proposal.after - reach.proposal.before) * np.sqrt(reach.boxes)
    k = int(gain.argmax())
    why = (
        f"IoU {reach.assigner.positive_iou:g} or more with {reach.proposal.after[k]:.0%} of {reach.class_names[k]}, "
        f"not {reach.proposal.before[k]:.0%}; with {reach.proposal.mean_after:.0%} of all, not "
        f"{reach.proposal.mean_before:.0%} (classes balanced)"
    )
    return [Setting("model.anchors", whole, why)]


def _bad_boxes(train: CocoData, val: CocoData | None) -> list[Setting]:
    bad = {
        name: sum(count for reason, count in data.dropped.items() if reason.startswith("bad boxes"))
        for name, data in (("train", train), ("val", val))
        if data is not None
    }
    if not any(bad.values()):
        return []
    counts = " and ".join(f"{count} in {name}" for name, count in bad.items() if count)
    return [Setting("data.bad_annotations", "drop", f"boxes of no size, NaN or outside their image: {counts}")]


def _imbalance(config: Config, said: list[str]) -> tuple[list[Setting], list[str]]:
    """What `imbalance.choose` set in `config`, with the reasons that it gave; and what it said beside."""
    said = [line.strip() for line in said]
    reasons = [line.partition(": ")[2] for line in said]
    settings, notes = [], said[:1]
    if len(said) == 1:
        return settings, notes
    loss, sampling, pasting = reasons[1:]
    if "alpha" in config.loss.model_fields_set:
        settings.append(Setting("loss.alpha", config.loss.alpha, loss))
        settings.append(Setting("loss.effective_beta", config.loss.effective_beta,
                                "tells counts apart up to a third of the commonest class's, or 1000"))  # fmt: skip
    if config.data.sampling != "uniform":
        settings.append(Setting("data.sampling", config.data.sampling, sampling))
        settings.append(Setting("data.repeat_threshold", config.data.repeat_threshold,
                                "classes in a smaller share of the images than this are repeated"))  # fmt: skip
    else:
        notes.append(said[2])
    if config.augment.paste:
        paste = config.augment.paste.model_dump(exclude_unset=True)
        settings.append(Setting("augment.paste", paste, pasting))
    else:
        notes.append(said[3])
    return settings, notes


def _notes(train: CocoData, val: CocoData | None, report: ClassReport) -> list[str]:
    few = [report.class_names[k] for k in report.order if report.boxes[k] < FEW]
    notes = []
    if few:
        notes.append(f"no setting makes up for missing data: fewer than {FEW} boxes of {shortened(few)}")
    if val is not None:
        measured = val.class_counts()
        poor = [train.class_names[k] for k in report.order if report.boxes[k] and measured[k] < FEW]
        if poor:
            notes.append(f"val has fewer than {FEW} boxes of {shortened(poor)}: conclude nothing from their AP")
    return notes
