"""Evaluate a detector on a split of a dataset: detections, figures, files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector import checkpoint
from detector.config.file import validate
from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.data.loader import eval_loader
from detector.data.split import read_split
from detector.evaluation.assess import Assessment, assess, write_evaluation
from detector.evaluation.deployment import Deployment
from detector.evaluation.detections import Detections
from detector.evaluation.metrics.score_thresholds import UNCHOSEN, Goal, Threshold, thresholds_at
from detector.evaluation.report.page import write_report
from detector.evaluation.report.provenance import provenance
from detector.evaluation.report.samples import draw_samples
from detector.evaluation.report.tables import tables
from detector.inference.detect import detect
from detector.inference.detector import Detector
from detector.models.postprocess import Postprocess
from detector.models.retinanet import RetinaNet
from detector.utils.console import console, progress_bar
from detector.utils.disk import check_writable
from detector.utils.errors import InputError
from detector.utils.json_lines import read_json_lines
from detector.utils.lock import locked
from detector.utils.signals import StopRequest
from detector.utils.text import counted, match_names


def evaluate_detector(detector: Detector, source: str, split: str, dataset: str | None) -> dict[str, Any]:
    """Evaluate a loaded detector on a split, print the tables, write the files. Returns the metrics.

    source: what the detector was loaded from. dataset: another descriptor than the one it was trained with. The files
    go to eval/<split>/ of the run directory, or of `output_dir` for a CONFIG; with `dataset`, to
    eval/<split>-<its name>/. Classes are matched by name. On the detector's own val split, if its checkpoint
    has no thresholds for `eval.threshold`, they are chosen and saved in it. Raises InputError.
    """
    config = detector.config
    run = run_directory_of(Path(source), config)
    directory = run / "eval" / (split if dataset is None else f"{split}-{Path(dataset).stem}")
    data = read_split(config, split, dataset=dataset)
    check_writable(directory)
    for remark in data.remarks():
        console.print(remark)
    classes = ClassMapping.by_name(detector.class_names, data)
    found = detect_split(detector.model, detector.postprocess, data, config, detector.device)
    counts = None
    if detector.class_counts is not None:
        counts = classes.in_dataset(np.asarray(detector.class_counts), missing=0)
    assessment = assess(classes.detections(found), data, counts, config.eval.backend)
    if split == "val" and dataset is None and data.class_names == detector.class_names:
        detector = _choose_and_keep(detector, source, assessment)
    if config.eval.calibrate and detector.deployment:
        found, calibrated = detector.deployment.calibrated(found)
        detector = replace(detector, deployment=calibrated)
        assessment = assess(classes.detections(found), data, counts, config.eval.backend)
        console.print("eval.calibrate: figures, thresholds and detections.json are of calibrated scores")
    metrics = assessment.analysis(_thresholds_of(detector, classes, assessment))

    write_evaluation(directory, assessment.detections, data, metrics, draw_samples(assessment.detections, data))
    described = split if dataset is None else f"{split} of {dataset}"
    curves = read_json_lines(run / "metrics.jsonl")
    write_report(
        directory / "report.html",
        metrics=metrics,
        matching=assessment.matching,
        provenance=provenance(config, source, detector.class_counts, data, described, curves),
        curves=curves,
    )
    console.print(f"{tables(metrics)}\nwritten to {directory}; open {directory / 'report.html'}")
    return metrics


def detect_split(
    model: RetinaNet,
    postprocess: Postprocess,
    data: CocoData,
    config: Config,
    device: torch.device,
    stop: StopRequest | None = None,
) -> Detections:
    """The detections on all images of `data`, in their order, with a progress bar. A signal to `stop` ends it early."""
    loader = eval_loader(
        data, image_size=config.data.image_size, batch_size=config.eval.batch_size, workers=config.data.workers
    )
    model.eval()
    parts, first = [], 0
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=len(loader))
        for images, targets in loader:
            parts.append(Detections.from_batch(detect(model, postprocess, images, targets, device), first))
            first += len(targets)
            bar.advance(task)
            if stop and stop.signum:
                break
    return Detections.concatenate(parts)


def run_directory_of(source: Path, config: Config) -> Path:
    """Where the evaluation of `source` is written: its run directory; the folder of a lone checkpoint; `output_dir` of
    a CONFIG."""
    if source.is_dir():
        return source
    if source.suffix in (".yaml", ".yml"):
        return config.run_directory
    return source.parent.parent if source.parent.name == "checkpoints" else source.parent


@dataclass(frozen=True)
class ClassMapping:
    """Which class of a dataset each class of a detector is.

    labels: (K,) int64, the dataset's label of each of the detector's K classes; -1: the dataset does not have it.
    num_classes: of the dataset.
    """

    labels: np.ndarray
    num_classes: int

    @classmethod
    def by_name(cls, class_names: list[str], data: CocoData) -> ClassMapping:
        """Match names, ignoring case and spaces, and print which classes only one side has. Raises InputError if they
        share none."""
        matches = match_names(class_names, data.class_names)
        if not matches:
            raise InputError(
                f"the detector and the dataset share no class; the detector knows {', '.join(class_names)}"
            )
        unknown = [name for name in data.class_names if name not in matches.values()]
        if unknown:
            console.print(f"classes the detector does not know, counted as never found: {', '.join(unknown)}")
        if len(class_names) > len(matches):
            others = counted(len(class_names) - len(matches), "class")
            console.print(f"not in this dataset: {others} of the detector")
        index = {name: label for label, name in enumerate(data.class_names)}
        labels = [index[matches[name]] if name in matches else -1 for name in class_names]
        return cls(np.array(labels, np.int64), len(data.class_names))

    def detections(self, found: Detections) -> Detections:
        """With the dataset's labels; detections of classes that it does not have are left out."""
        labels = self.labels[found.labels]
        return replace(found, labels=labels).select(labels >= 0)

    def in_dataset(self, values: np.ndarray, missing: Any) -> np.ndarray:
        """(K,) values of the detector's classes → values of the dataset's classes; `missing` where the detector lacks a
        class."""
        known = self.labels >= 0
        mapped = np.full(self.num_classes, missing)
        mapped[self.labels[known]] = values[known]
        return mapped


def _choose_and_keep(detector: Detector, source: str, assessment: Assessment) -> Detector:
    """On its own val split: the detector with thresholds for the configured goal, kept in its checkpoint; itself, if it
    has thresholds for this goal already."""
    goal = Goal(**detector.config.eval.threshold.model_dump())
    if detector.deployment is not None and detector.deployment.goal == goal:
        return detector
    deployment = assessment.deployment(goal)
    _keep(deployment, detector, source)
    return replace(detector, deployment=deployment)


def _thresholds_of(detector: Detector, classes: ClassMapping, assessment: Assessment) -> list[Threshold]:
    """What the detector's own thresholds give on this dataset; UNCHOSEN where its checkpoint has none."""
    goal, deployment, hits = Goal(**detector.config.eval.threshold.model_dump()), detector.deployment, assessment.hits
    if deployment is None:
        console.print(f"no thresholds were chosen for this detector: {UNCHOSEN} is used; an evaluation on val chooses")
        none = [False] * len(hits)
        return [replace(t, chosen=False) for t in thresholds_at(hits, goal, [UNCHOSEN] * len(hits), none, none)]
    if deployment.goal != goal:
        console.print(f"thresholds stay those for {deployment.goal}: others are chosen on the detector's own val split")
    for line in deployment.threshold_lines():
        console.print(line)
    scores = classes.in_dataset(deployment.thresholds, missing=1.0)
    borrowed, unreached = (
        classes.in_dataset(np.array([name in names for name in detector.class_names]), missing=True)
        for names in (deployment.borrowed, deployment.unreached)
    )
    known = classes.in_dataset(np.ones(len(detector.class_names), bool), missing=False)
    given = thresholds_at(hits, deployment.goal, scores, ~borrowed, ~unreached)
    return [replace(threshold, chosen=bool(is_known)) for threshold, is_known in zip(given, known, strict=True)]


def _keep(deployment: Deployment, detector: Detector, source: str) -> None:
    """Write the deployment and its goal into the detector's checkpoint, unless it was loaded with other data or model
    settings."""
    if Path(source).suffix in (".yaml", ".yml"):
        return
    path = checkpoint.find(Path(source))
    try:
        with locked(run_directory_of(path, detector.config)):  # a training may be writing this file
            state, config = checkpoint.load(path), detector.config
            saved = validate(state["config"], str(path))  # an older version's lacks the newer settings
            if (saved.data, saved.model) != (config.data, config.model):
                raise InputError(f"data or model settings differ from those of {path}")
            state["config"]["eval"]["threshold"] = config.eval.threshold.model_dump()
            checkpoint.save(path, {**state, "deployment": deployment.state()})
    except (InputError, OSError) as problem:
        console.print(f"thresholds for {deployment.goal} were chosen for this evaluation only: {problem}")
        return
    console.print(f"thresholds chosen on val, for {deployment.goal}, kept in {path}")
