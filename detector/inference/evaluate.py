"""Evaluate a detector on one split of a dataset: detections, what is to be said of them, and the files it goes to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from detector import checkpoint
from detector.config.schema import Config
from detector.data.coco import CocoData, check_images_exist, load_descriptor, read_coco
from detector.data.loader import eval_loader
from detector.evaluation.assess import write_evaluation
from detector.evaluation.deployment import Deployment
from detector.evaluation.detections import Detections
from detector.evaluation.metrics.analysis import analyse
from detector.evaluation.metrics.average_precision import ClassHits, hits_by_class
from detector.evaluation.metrics.coco import pycocotools_metrics
from detector.evaluation.metrics.matching import Matching, match
from detector.evaluation.metrics.thresholds import UNCHOSEN, Goal, Threshold, choose_thresholds, thresholds_at
from detector.evaluation.report.page import write_report
from detector.evaluation.report.provenance import provenance
from detector.evaluation.report.samples import draw_samples
from detector.evaluation.report.tables import tables
from detector.inference.detect import evaluate
from detector.utils.console import console, progress_bar
from detector.utils.errors import InputError
from detector.utils.lock import locked
from detector.utils.names import match_names
from detector.utils.records import read_records
from detector.utils.signals import StopRequest

if TYPE_CHECKING:
    from detector.inference.detector import Detector


def detect_split(
    model, postprocess, data: CocoData, config: Config, device: torch.device, stop: StopRequest | None = None
) -> Detections:
    """All detections on the images of `data`, in their order, with a progress bar. A signal to `stop` ends it early."""
    loader = eval_loader(
        data, image_size=config.data.image_size, batch_size=config.eval.batch_size, workers=config.data.workers
    )
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=len(loader), note="")
        parts = []
        for part in evaluate(model, postprocess, loader, device=device):
            parts.append(part)
            bar.advance(task)
            if stop and stop.signum:
                break
    return Detections.concatenate(parts)


def evaluate_detector(detector: Detector, source: str, split: str, dataset: str | None) -> dict:
    """Evaluate a loaded detector on a split, print the tables, write the files; returns the metrics.

    The files go to eval/<split>/ of the run directory, or of `output_dir` for a CONFIG; with another `dataset`, to
    eval/<split>-<its name>/. Classes are matched by name. On its own val split, thresholds for another `eval.threshold`
    than its checkpoint was given are chosen anew and kept there. Raises InputError.
    """
    config = detector.config
    descriptor = load_descriptor(dataset or config.data.dataset)
    data = read_coco(descriptor.split(split), descriptor.classes, config.data.bad_annotations)
    check_images_exist(data)
    for reason, count in data.dropped.items():
        console.print(f"{count} annotations left out: {reason}")
    new_labels = _labels_in(data, detector.class_names)
    detections = detect_split(detector.model, detector.postprocess, data, config, detector.device)
    labels = new_labels[detections.labels]
    detections = replace(detections, labels=labels).select(labels >= 0)
    matching = match(detections, data)
    hits = hits_by_class(matching)
    own_val = split == "val" and dataset is None and data.class_names == detector.class_names
    thresholds = _thresholds(detector, source, matching, hits, new_labels, own_val)
    counts = _in_labels(detector.class_counts, new_labels, len(data.class_names), 0)
    reference = pycocotools_metrics(detections, data) if config.eval.backend == "pycocotools" else None
    metrics = analyse(matching, hits, thresholds, counts, reference)
    run = run_directory_of(Path(source), config)
    directory = run / "eval" / (split if dataset is None else f"{split}-{Path(dataset).stem}")
    write_evaluation(directory, detections, data, metrics, draw_samples(detections, data))
    write_report(
        directory / "report.html",
        metrics=metrics,
        matching=matching,
        provenance=provenance(
            config, source, detector.class_counts, data, split if dataset is None else f"{split} of {dataset}"
        ),
        curves=read_records(run / "metrics.jsonl") or None,
    )
    console.print(f"{tables(metrics)}\nwritten to {directory}; open {directory / 'report.html'}")
    return metrics


def _thresholds(
    detector: Detector, source: str, matching: Matching, hits: list[ClassHits], new_labels: np.ndarray, own_val: bool
) -> list[Threshold]:
    """What the detector is used with: what its checkpoint has, or, on its own val split, what is chosen anew for a goal
    that it was not yet chosen for."""
    goal, deployment = Goal(**detector.config.eval.threshold.model_dump()), detector.deployment
    if own_val and (deployment is None or deployment.goal != goal):
        thresholds = choose_thresholds(hits, goal)
        _keep(Deployment.of(matching, thresholds, goal), detector, source)
        return thresholds
    if deployment is None:
        console.print(f"no thresholds were chosen for this detector: {UNCHOSEN} is used; an evaluation on val chooses")
        return thresholds_at(hits, goal, [UNCHOSEN] * len(hits), [False] * len(hits))
    if deployment.goal != goal:
        console.print(f"thresholds stay those for {deployment.goal}: others are chosen on the detector's own val split")
    scores = _in_labels(deployment.thresholds, new_labels, len(hits), 1.0)
    borrowed = [name in deployment.borrowed for name in detector.class_names]
    return thresholds_at(hits, deployment.goal, scores, ~_in_labels(borrowed, new_labels, len(hits), True))


def _keep(deployment: Deployment, detector: Detector, source: str) -> None:
    """Write it into the detector's checkpoint, with the goal, if it was chosen on the data that the detector is for."""
    for line in deployment.lines():
        console.print(line)
    if Path(source).suffix in (".yaml", ".yml"):
        return
    path = checkpoint.find(Path(source))
    try:
        with locked(run_directory_of(path, detector.config)):  # a training may be writing that very file
            state, config = checkpoint.load(path), detector.config.model_dump()
            if any(config[section] != state["config"][section] for section in ("data", "model")):
                raise InputError(f"data or model are not {path}'s own")
            state["config"]["eval"]["threshold"] = config["eval"]["threshold"]
            checkpoint.save(path, {**state, "deployment": deployment.state()})
    except InputError as problem:
        console.print(f"thresholds chosen for {deployment.goal} are for this time only: {problem}")
        return
    console.print(f"thresholds chosen on val, for {deployment.goal}, kept in {path}")


def _in_labels(values, new_labels: np.ndarray, num_classes: int, missing) -> np.ndarray | None:
    """Values of the detector's classes as those of the dataset's, `missing` for a class that the detector lacks."""
    if values is None:
        return None
    known = new_labels >= 0
    there = np.full(num_classes, missing)
    there[new_labels[known]] = np.asarray(values)[known]
    return there


def _labels_in(data: CocoData, class_names: list[str]) -> np.ndarray:
    """(K,) int64: for each of the detector's classes the dataset's label of that name (`match_names`), or -1.

    Says which classes only one of them has. Raises InputError if they share none.
    """
    there = match_names(class_names, data.class_names)
    unknown = [name for name in data.class_names if name not in there.values()]
    if not there:
        raise InputError(f"the detector and the dataset share no class; the detector knows {', '.join(class_names)}")
    if unknown:
        console.print(f"classes the detector does not know, counted as never found: {', '.join(unknown)}")
    if len(class_names) > len(there):
        console.print(f"{len(class_names) - len(there)} classes of the detector are not in this dataset: not counted")
    return np.array([data.class_names.index(there[name]) if name in there else -1 for name in class_names])


def run_directory_of(source: Path, config: Config) -> Path:
    """Where the evaluation of `source` is written: its run, else the folder of a lone checkpoint, else output_dir."""
    if source.is_dir():
        return source
    if source.suffix in (".yaml", ".yml"):
        return Path(config.output_dir)
    return source.parent.parent if source.parent.name == "checkpoints" else source.parent
