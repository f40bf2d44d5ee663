"""Evaluate a detector on one split of a dataset: detections, what is to be said of them, and the files it goes to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from detector import checkpoint
from detector.config import Config
from detector.data.coco import CocoData, check_images_exist, load_descriptor, read_coco
from detector.data.image import read_image
from detector.data.loader import eval_loader
from detector.engine import evaluate
from detector.evaluation.analysis import analyse
from detector.evaluation.average_precision import ClassHits, hits_by_class
from detector.evaluation.coco import pycocotools_metrics
from detector.evaluation.deployment import Deployment
from detector.evaluation.detections import Detections, coco_results
from detector.evaluation.draw import contact_sheet, truth_beside_detections
from detector.evaluation.matching import Matching, match
from detector.evaluation.report import write_report
from detector.evaluation.tables import tables
from detector.evaluation.thresholds import UNCHOSEN, Goal, Threshold, choose_thresholds, thresholds_at
from detector.facts import facts
from detector.utils.errors import InputError
from detector.utils.lock import locked
from detector.utils.logging import console, progress_bar
from detector.utils.names import match_names
from detector.utils.records import read_records
from detector.utils.signals import StopRequest
from detector.utils.whole import replacing, write_whole

if TYPE_CHECKING:
    from detector.inference import Detector

SAMPLES = 8  # pictures of a contact sheet
DRAWN_SCORE = 0.3  # detections below are not drawn


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


def write_evaluation(
    directory: Path, detections: Detections, data: CocoData, metrics: dict, samples: np.ndarray
) -> None:
    """Write metrics.json, detections.json (COCO results format) and samples.jpg (see draw_samples) into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / "detections.json", json.dumps(coco_results(detections, data)))
    write_metrics(directory, metrics)
    with replacing(directory / "samples.jpg") as file:
        Image.fromarray(samples).save(file, "JPEG", quality=90)


def write_metrics(directory: Path, metrics: dict) -> None:
    write_whole(directory / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def draw_samples(detections: Detections, data: CocoData) -> np.ndarray:
    """Some images with their ground truth (left, white) and detections (right), as one picture (H, W, 3).

    Chosen to show every class, the rarest first, rather than at random: that is where to look.
    """
    pictures = []
    for i in choose_samples(data):
        mine = (detections.images == i) & (detections.scores >= DRAWN_SCORE)
        found = {key: getattr(detections, key)[mine] for key in ("boxes", "scores", "labels")}
        image = read_image(data.images_dir / data.file_name(i), (int(data.heights[i]), int(data.widths[i])))
        pictures.append(truth_beside_detections(image, data.target_boxes(i), found, data.class_names))
    return contact_sheet(pictures, columns=2)


def choose_samples(data: CocoData) -> list[int]:
    """At most SAMPLES images: one for each class from the rarest on, then the first of the rest."""
    image_of_box = np.repeat(np.arange(len(data)), np.diff(data.first))
    chosen: list[int] = []
    for label in np.argsort(data.class_counts(), kind="stable"):
        chosen += [int(i) for i in image_of_box[data.labels == label] if i not in chosen][:1]
    chosen += [i for i in range(min(len(data), SAMPLES)) if i not in chosen]
    return sorted(chosen[:SAMPLES])


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
    metrics = analyse(matching, hits, thresholds, counts)
    if config.eval.backend == "pycocotools":
        _put_in(metrics, pycocotools_metrics(detections, data))
    run = run_directory_of(Path(source), config)
    directory = run / "eval" / (split if dataset is None else f"{split}-{Path(dataset).stem}")
    write_evaluation(directory, detections, data, metrics, draw_samples(detections, data))
    write_report(
        directory / "report.html",
        metrics=metrics,
        matching=matching,
        data=data,
        facts=facts(config, source, detector.class_counts, data, split if dataset is None else f"{split} of {dataset}"),
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


def _put_in(metrics: dict, reference: dict) -> None:
    for name, row in reference.pop("per_class").items():
        metrics["per_class"][name] |= row
    metrics |= reference


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
