"""What a training does on val: after an epoch, and when it is over."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager

from detector import checkpoint
from detector.evaluation.analysis import analyse
from detector.evaluation.average_precision import hits_by_class
from detector.evaluation.coco import coco_metrics, value_of
from detector.evaluation.deployment import Deployment
from detector.evaluation.detections import Detections
from detector.evaluation.draw import plot_curves
from detector.evaluation.matching import match
from detector.evaluation.report import write_report
from detector.evaluation.tables import tables
from detector.evaluation.thresholds import Goal, choose_thresholds
from detector.evaluator import detect_split, draw_samples, write_evaluation, write_metrics
from detector.facts import facts
from detector.models.build import build_postprocess
from detector.monitor import plot_classes
from detector.run import Progress, Run, Training
from detector.utils.errors import InputError
from detector.utils.records import read_records


def look_for_best(run: Run, progress: Progress) -> None:
    """To be called where a training goes on. best.pt may be newer than the checkpoint that it goes on from: then it
    stays until it is beaten or its epoch comes again. Where it is lost, the next evaluation makes another.
    """
    try:
        best = checkpoint.load(run.directory.best)
    except InputError as problem:
        if progress.best > -math.inf:
            run.log.say(f"warning: {problem}; the best of the evaluations to come takes its place")
            progress.best = -math.inf
        return
    match best.get("evaluated"):
        case {"epoch": int(epoch), "value": float(value)} if epoch > progress.evaluated:
            progress.best, progress.best_epoch = value, epoch


def evaluate_epoch(run: Run, training: Training) -> None:
    """Figures and pictures of val; the checkpoint, files and thresholds of the best so far are kept."""
    progress, directory, log = training.progress, run.directory, run.log
    postprocess = build_postprocess(run.config.model.postprocess)
    detections = detect_split(training.detector, postprocess, run.val, run.config, run.device)
    metrics = coco_metrics(detections, run.val, run.config.eval.backend)
    log.numbers("eval", progress.step, progress.epoch, metrics)
    samples = draw_samples(detections, run.val)
    log.picture("val: truth, detections", progress.step, samples)
    before = "" if progress.epoch else "before the first step: "
    log.say(f"  {before}val AP {metrics['AP']:.3f}, AP50 {metrics['AP50']:.3f}, AP75 {metrics['AP75']:.3f}")
    value = value_of(metrics, run.config.train.metric)
    is_best = value > progress.best or progress.epoch == progress.best_epoch
    if is_best and _keep_best(run, training, detections, metrics, samples, value):
        progress.best, progress.best_epoch = value, progress.epoch
    progress.evaluated = progress.epoch
    with _unless_full(run, "the curves"):
        plot_curves(directory.metrics, directory.curves)
        plot_classes(directory.metrics, directory.class_curves)


def _goal(run: Run) -> Goal:
    return Goal(**run.config.eval.threshold.model_dump())


def _keep_best(run: Run, training: Training, detections: Detections, metrics: dict, samples, value: float) -> bool:
    """Whether it could be saved: where not, what was the best before still is."""
    matching = match(detections, run.val)
    deployment = Deployment.of(matching, choose_thresholds(hits_by_class(matching), _goal(run)), _goal(run))
    evaluated = {"epoch": training.progress.epoch, "value": value}
    weights = {"model": training.detector.state_dict()}
    run.save(run.directory.best, {**weights, "deployment": deployment.state(), "evaluated": evaluated})
    if not run.settle():
        return False
    with _unless_full(run, "the figures of the best checkpoint"):
        write_evaluation(run.directory.evaluation, detections, run.val, metrics, samples)
    return True


@contextmanager
def _unless_full(run: Run, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        run.log.say(f"warning: {what} could not be written: {problem.strerror}")


def conclude(run: Run, progress: Progress, stopped_early: bool) -> None:
    """All that is to be said of the best evaluation: tables, metrics.json, report.html, and where to look."""
    settings, directory, log = run.config.train, run.directory, run.log
    if stopped_early:
        log.say(f"stopped early: {settings.metric} did not rise for {settings.patience} epochs (train.patience)")
    try:
        found = Detections.from_results(json.loads((directory.evaluation / "detections.json").read_text()), run.val)
    except (FileNotFoundError, json.JSONDecodeError):  # they could not be written
        log.say(f"done, but the best checkpoint's figures are missing; tools/eval.py {directory.path} makes them anew")
        return
    counts, matching = run.train.class_counts(), match(found, run.val)
    hits = hits_by_class(matching)
    metrics = analyse(matching, hits, choose_thresholds(hits, _goal(run)), counts)
    log.say(tables(metrics))
    with _unless_full(run, "the report"):
        write_metrics(directory.evaluation, metrics)
        write_report(
            directory.report,
            metrics=metrics,
            matching=matching,
            data=run.val,
            facts=facts(run.config, str(directory.path), counts.tolist(), run.val, "val"),
            curves=read_records(directory.metrics),
        )
    log.say(
        f"done; these are the best checkpoint's, of epoch {progress.best_epoch}: {settings.metric} {progress.best:.3f}"
    )
    log.say(f"on val. Report: {directory.report}; figures and pictures: {directory.evaluation}")
