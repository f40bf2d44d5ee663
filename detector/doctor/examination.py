"""The whole examination of a dataset, as it is told: sound? imbalanced how? reachable? so use this."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from detector.config.schema import Config
from detector.data.coco import CocoData, read_coco
from detector.data.descriptor import Descriptor, Split
from detector.doctor.advice.advice import Advice, advise, config_lines, write_config
from detector.doctor.advice.recipe import configured, recipe
from detector.doctor.checks.soundness import descriptor_of, examine
from detector.doctor.class_balance import ClassReport, describe_classes
from detector.doctor.finding import Finding
from detector.doctor.reach.reach import Reach, reach
from detector.doctor.repair.repair import fix
from detector.training.setup import read_training_data
from detector.utils.errors import InputError

BAD_BOXES = ("not-finite", "negative-size", "zero-size", "outside")  # errors that data.bad_annotations=drop cures
EXAMPLES = 3  # of a finding, on the console


@dataclass(frozen=True)
class Examination:
    """What the doctor says. The last three are None where the training split cannot be read: `unreadable` says why."""

    descriptor: Descriptor
    findings: list[Finding]
    unreadable: str | None
    classes: ClassReport | None
    reach: Reach | None
    advice: Advice | None

    def lines(self) -> list[str]:
        """All of it, for the console."""
        return [
            *("sound?", *_findings(self.findings), ""),
            *("imbalanced how?", *(self.classes.lines() if self.classes else self._not_read()), ""),
            *("reachable?", *(self.reach.lines() if self.reach else self._not_read()), ""),
            *("so use this", *(self.advice.lines() if self.advice else self._not_read()), ""),
            self.verdict(),
        ]

    def verdict(self) -> str:
        """A sentence: whether to train on it."""
        errors = [finding for finding in self.findings if finding.severity == "error"]
        warnings = sum(finding.severity == "warning" for finding in self.findings)
        more = f" and {warnings} of warnings" if warnings else ""
        if not errors and not self.unreadable:
            return f"verdict: sound, with {warnings} kinds of warnings" if warnings else "verdict: sound"
        kinds = f"{len(errors)} kind{'s' * (len(errors) != 1)} of errors{more}"
        if not self.unreadable and all(finding.check in BAD_BOXES for finding in errors):
            return f"verdict: {kinds}; bad boxes only, which data.bad_annotations=drop leaves out of a training"
        return f"verdict: not sound, {kinds}: repair what --fix can, and the rest by hand, before training"

    def _not_read(self) -> list[str]:
        return [f"  not told, as the annotations cannot be used: {self.unreadable}"]


def examine_dataset(path: str, config: Config | None = None) -> Examination:
    """Examine the dataset of a descriptor (YAML) or of a bare annotation file (JSON), whose images may be absent.

    config: whose image size, anchors and assigner to look through; None = those that are advised. The advice does not
    depend on it. Bad boxes are left out of all but the findings. Raises InputError where there is no such dataset.
    """
    descriptor = descriptor_of(path)
    findings = examine(descriptor)
    try:
        train, val = _read(descriptor)
    except InputError as problem:
        return Examination(descriptor, findings, str(problem), None, None, None)
    settings = recipe(path, train, gpu=torch.cuda.is_available())
    draft = configured(settings)
    reached = reach(train, draft)
    if reached.proposal:
        draft.model.anchors = reached.proposal.anchors
    classes = describe_classes(train, draft)
    advice = advise(descriptor, train, val, classes, reached, settings)
    if config is not None:
        classes, reached = describe_classes(train, config), reach(train, config)
    return Examination(descriptor, findings, None, classes, reached, advice)


def write_advice(examination: Examination, path: Path) -> None:
    """Write the config that is advised, where a training with it can start (image files are not opened).

    Raises InputError where it cannot, with what to repair first, or the file exists.
    """
    descriptor = examination.descriptor
    if descriptor.path in [split.annotations for split in descriptor.splits.values()]:
        raise InputError(
            f"{path}: not written: a training needs a descriptor (YAML) with `train:` and `val:`, not JSON"
        )
    try:
        if examination.unreadable:
            raise InputError(examination.unreadable)
        read_training_data(examination.advice.config)
    except InputError as problem:
        raise InputError(f"{path}: not written, as no training could start; repair this first: {problem}") from None
    write_config(examination.advice, path)


def write_html(examination: Examination, path: Path) -> None:
    """Write all of it as one page, with plots and pictures."""
    from detector.doctor.page import write_page  # only for those who ask for it

    advice, splits = examination.advice, examination.descriptor.splits
    write_page(
        path,
        title=examination.descriptor.path.name,
        findings=examination.findings,
        folders={name: split.images for name, split in splits.items()},
        classes=examination.classes,
        reach=examination.reach,
        advice=advice,
        config_text="\n".join(config_lines(advice)) if advice else None,
        described=described_split(examination.descriptor),
    )


def write_fixed(descriptor: Descriptor, split: str | None, path: Path) -> list[str]:
    """Write a repaired copy of a split's annotation file; what was changed, as lines. Raises InputError.

    split: None = the one whose classes are told.
    """
    check_new(path)
    return fix(_split(descriptor, split or described_split(descriptor)), path)


def check_new(path: Path) -> None:
    """Raise InputError where the file exists: nothing is overwritten."""
    if path.exists():
        raise InputError(f"{path}: exists already, and is not overwritten; give another name, or remove it")


def described_split(descriptor: Descriptor) -> str:
    """The split whose classes and reach are told: train, or the first where none is called so."""
    return "train" if "train" in descriptor.splits else next(iter(descriptor.splits))


def _read(descriptor: Descriptor) -> tuple[CocoData, CocoData | None]:
    """The split that is described and val, without their bad boxes. Raises InputError."""
    name = described_split(descriptor)
    train = read_coco(_split(descriptor, name), descriptor.classes, "drop")
    if not train.class_counts().any():
        raise InputError(f"{descriptor.splits[name].annotations}: no object in the whole training set")
    if name == "val" or "val" not in descriptor.splits:
        return train, None
    return train, read_coco(_split(descriptor, "val"), train.class_names, "drop")


def _split(descriptor: Descriptor, name: str) -> Split:
    """Of the descriptor, whether its folder exists or not. Raises InputError."""
    if name not in descriptor.splits:
        raise InputError(f"{descriptor.path}: no split `{name}`; there is: {', '.join(descriptor.splits)}")
    return descriptor.splits[name]


def _findings(findings: list[Finding]) -> list[str]:
    """A line a finding, below it what to do and the first examples."""
    lines = []
    for finding in findings:
        lines.append(f"  {finding.severity}: {finding.split}: {finding.message} ({finding.check})")
        lines += [f"    {example.text}" for example in finding.examples[:EXAMPLES]]
        lines += [f"    ... and {finding.count - EXAMPLES} more"] if finding.count > EXAMPLES else []
        lines.append(f"    -> {finding.advice}")
    return lines or ["  nothing was found"]
