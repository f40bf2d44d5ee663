"""The whole examination of a dataset: is it sound, how imbalanced, can anchors reach its objects, and what to use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from detector import checkpoint
from detector.config.schema import Config
from detector.data.checks.boxes import BAD_BOXES
from detector.data.checks.finding import Finding
from detector.data.coco import CocoData, read_coco
from detector.data.descriptor import Descriptor, descriptor_of, is_annotation_file, split_command
from detector.doctor.advice.advice import advise
from detector.doctor.advice.config_text import write_config
from detector.doctor.advice.enlarge import enlarge
from detector.doctor.advice.finest_level import finest_level
from detector.doctor.advice.recipe import recipe
from detector.doctor.advice.setting import to_config
from detector.doctor.checks.check_dataset import TOO_FEW, check_dataset
from detector.doctor.class_balance import describe_classes
from detector.doctor.reach.reach import measure_reach
from detector.doctor.repair.repair import fix
from detector.doctor.report import Report
from detector.inference.config_check import check_config
from detector.training.setup import read_training_data
from detector.utils.disk import check_writable
from detector.utils.errors import InputError
from detector.utils.text import counted, plural, shortened

EXAMPLES_SHOWN = 3  # of a finding, on the console


@dataclass(frozen=True)
class Examination:
    """What the doctor says about a dataset."""

    descriptor: Descriptor
    findings: list[Finding]
    report: Report | str  # of the described split; if its annotations cannot be used, a sentence that says why

    def lines(self) -> list[str]:
        """All of it, for the console."""
        if isinstance(self.report, str):
            unknown = [f"  unknown, since the annotations cannot be used: {self.report}"]
            classes = reach = advice = unknown
        else:
            report = self.report
            classes, reach, advice = report.classes.lines(), report.reach.lines(), report.advice.lines()
        return [
            *("sound?", *_finding_lines(self.findings), ""),
            *("imbalanced how?", *classes, ""),
            *("reachable?", *reach, ""),
            *("so use this", *advice, ""),
            self.verdict(),
        ]

    def verdict(self) -> str:
        """One line: whether to train on the dataset."""
        errors = [finding for finding in self.findings if finding.severity == "error"]
        warnings = sum(finding.severity == "warning" for finding in self.findings)
        usable = not isinstance(self.report, str)
        small = [finding.message for finding in self.findings if finding.check == TOO_FEW]
        if not errors and usable and small:
            return f"verdict: no error, but too small to train on: {' and '.join(small)}"
        if not errors and usable:
            return f"verdict: sound, with {_kinds(warnings, 'warning')}" if warnings else "verdict: sound"
        kinds = _kinds(len(errors), "error") + (f" and {warnings} of warnings" if warnings else "")
        if usable and all(finding.check in BAD_BOXES for finding in errors):
            return f"verdict: {kinds}; only bad boxes, which training leaves out with data.bad_annotations=drop"
        return f"verdict: not sound, {kinds}: before training, {_how_to_repair(errors)}"


def examine_dataset(path: str, config: Config | None = None) -> Examination:
    """Examine the dataset of a descriptor (YAML), or of an annotation file (JSON), whose images may be absent.

    config: whose image size, anchors and assigner the classes and the reach are reported for; None = those advised. The
    advice does not depend on it. Bad boxes are findings, and left out of the report.
    Raises InputError if there is no such dataset, or `config` cannot be built.
    """
    if config:
        check_config(config)
        config = _resolved(config)
    descriptor = descriptor_of(path)
    findings = check_dataset(descriptor)
    try:
        train, val = _read(descriptor)
    except InputError as problem:
        return Examination(descriptor, findings, str(problem))
    gpu = torch.cuda.is_available()
    settings = recipe(path, train, gpu)
    draft = _resolved(to_config(settings))
    reach = measure_reach(train, draft)
    if larger := enlarge(train, draft, reach, gpu):
        settings = recipe(path, train, gpu, larger)
        draft = _resolved(to_config(settings))
        reach = measure_reach(train, draft)
    hints = finest_level(train, draft, reach)
    if reach.proposal:
        draft = draft.changed({"model.anchors": reach.proposal.anchors})
    classes = describe_classes(train, draft)
    bad = {
        name: sum(finding.count for finding in findings if finding.check in BAD_BOXES and finding.split == name)
        for name in (described_split(descriptor), "val")
    }
    advice = advise(settings, train, val, classes=classes, reach=reach, bad_boxes=bad, hints=hints)
    if config is not None:
        classes, reach = describe_classes(train, config), measure_reach(train, config)
    return Examination(descriptor, findings, Report(classes, reach, advice))


def write_advice(examination: Examination, path: Path) -> None:
    """Write the advised config, if a training with it can start. (Image files must exist; they are not opened.)

    Raises InputError if it cannot, with what to repair first, or if the file exists.
    """
    if is_annotation_file(examination.descriptor):
        raise InputError(
            f"{path}: not written: training needs a descriptor (YAML) with `train:` and `val:`, not an annotation "
            f"file; `{split_command(examination.descriptor.path)}` makes one"
        )
    try:
        if isinstance(examination.report, str):
            raise InputError(examination.report)
        advice = examination.report.advice
        read_training_data(advice.config)
    except InputError as problem:
        raise InputError(f"{path}: not written, since training could not start; repair this first: {problem}") from None
    write_config(advice.settings, advice.config.data.dataset, path)


def write_html(examination: Examination, path: Path) -> None:
    """Write all of it as one page, with plots and pictures."""
    from detector.doctor.page import write_page  # imports jinja2, only needed here

    write_page(
        path,
        title=examination.descriptor.path.name,
        findings=examination.findings,
        folders={name: split.images for name, split in examination.descriptor.splits.items()},
        report=None if isinstance(examination.report, str) else examination.report,
        described=described_split(examination.descriptor),
    )


def write_fixed(descriptor: Descriptor, split: str | None, path: Path) -> list[str]:
    """Write a repaired copy of a split's annotation file. Returns the changes, a line each.

    split: None = the described one. Raises InputError if there is no such split, it cannot be repaired, or `path`
    exists.
    """
    check_new(path)
    name = split or described_split(descriptor)
    train = descriptor.splits.get("train") if name != "train" else None
    return fix(descriptor.named(name), path, categories_of=train.annotations if train else None)


def check_new(path: Path) -> None:
    """Raise InputError if the file exists, since nothing is overwritten, or its folder cannot be written to."""
    if os.path.lexists(path):
        raise InputError(f"{path}: exists already; give another name, or remove it first")
    check_writable(path.parent)


def described_split(descriptor: Descriptor) -> str:
    """The split that the report is about: train, or the first if none is called so."""
    return "train" if "train" in descriptor.splits else next(iter(descriptor.splits))


def _read(descriptor: Descriptor) -> tuple[CocoData, CocoData | None]:
    """The described split, and val if that is another one, without their bad boxes. Raises InputError."""
    name = described_split(descriptor)
    train = read_coco(descriptor.named(name), descriptor.classes, "drop")
    if not train.class_counts().any():
        raise InputError(f"{descriptor.splits[name].annotations}: there is no object in {name}")
    if name == "val" or "val" not in descriptor.splits:
        return train, None
    return train, read_coco(descriptor.named("val"), train.class_names, "drop")


def _resolved(config: Config) -> Config:
    """With the anchors that a training would use. Raises InputError if its `model.weights` cannot be read."""
    return config.with_anchor_rule(checkpoint.anchor_rule(config.model.weights))


def _how_to_repair(errors: list[Finding]) -> str:
    """Which checks' findings --fix repairs, and which call for something else."""
    by_fix = [finding.check for finding in errors if finding.repairable]
    others = [finding.check for finding in errors if not finding.repairable]
    ways = (("with --fix", by_fix), ("as said above", others))
    return ", and ".join(f"repair {shortened(list(dict.fromkeys(checks)))} {way}" for way, checks in ways if checks)


def _kinds(count: int, what: str) -> str:
    return f"{counted(count, 'kind')} of {plural(what, count)}"


def _finding_lines(findings: list[Finding]) -> list[str]:
    """Each finding on a line, below it the first examples and what to do."""
    lines = []
    for finding in findings:
        lines.append(f"  {finding.severity}: {finding.split}: {finding.message} ({finding.check})")
        shown = finding.examples[:EXAMPLES_SHOWN]
        lines += [f"    {example.text}" for example in shown]
        lines += [f"    ... and {finding.count - len(shown)} more"] if 0 < len(shown) < finding.count else []
        lines.append(f"    -> {finding.advice}")
    return lines or ["  no problem was found"]
