"""What a training does on val: after an epoch, and when it is over."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from detector import checkpoint
from detector.evaluation.assess import write_evaluation, write_metrics
from detector.evaluation.deployment import Deployment
from detector.evaluation.detections import Detections
from detector.evaluation.metrics.analysis import analyse
from detector.evaluation.metrics.average_precision import hits_by_class
from detector.evaluation.metrics.coco import figures_of, pycocotools_metrics, value_of
from detector.evaluation.metrics.matching import match
from detector.evaluation.metrics.thresholds import Goal, choose_thresholds
from detector.evaluation.report.curves import plot_classes, plot_curves
from detector.evaluation.report.page import write_report
from detector.evaluation.report.provenance import provenance
from detector.evaluation.report.samples import draw_samples
from detector.evaluation.report.tables import tables
from detector.inference.evaluate import detect_split
from detector.models.build import build_postprocess
from detector.training.directory import RunDirectory
from detector.training.state import BestEvaluation, Progress, Run, Training
from detector.utils.errors import InputError
from detector.utils.records import read_records
from detector.utils.signals import StopRequest


def look_for_best(directory: RunDirectory, progress: Progress) -> list[str]:
    """To be called before a training goes on: best.pt may be newer than the checkpoint that it goes on from (then it is
    the best, until it is beaten or its epoch comes again), or older, or lost (then the best of the epochs to come takes
    its place, the last one among them if its weights are at hand). Returns warnings.
    """
    try:
        epoch, value = _evaluated(directory, progress)
    except InputError as problem:
        if progress.best == -math.inf:
            return []
        epoch, value, warnings = -1, -math.inf, [f"warning: {problem}; another takes its place"]
    else:
        warnings = []
    if epoch < progress.best_epoch or warnings:
        progress.best = value  # but best_epoch stays: that long ago it was that something rose, which patience goes by
        if (progress.epoch, progress.batch) == (progress.best_epoch, 0):
            progress.evaluated = progress.epoch - 1
    else:
        progress.best, progress.best_epoch = value, epoch
    return warnings


def _evaluated(directory: RunDirectory, progress: Progress) -> tuple[int, float]:
    """Epoch and value of best.pt; those of an earlier version do not say. Raises InputError where it is lost."""
    match checkpoint.load(directory.best).get("evaluated"):
        case {"epoch": int(epoch), "value": float(value)}:
            return epoch, value
    return progress.best_epoch, progress.best


def evaluate_epoch(run: Run, training: Training, stop: StopRequest) -> bool:
    """Figures and pictures of val; what there is of the best so far is for `keep_best`, before the weights move on.
    False where `stop` came before the last image: then it is as if nothing had been done.
    """
    progress, directory, log = training.progress, run.directory, run.log
    postprocess = build_postprocess(run.config.model.postprocess)
    detections = detect_split(training.detector, postprocess, run.val, run.config, run.device, stop)
    if stop.signum:
        return False
    reference = pycocotools_metrics(detections, run.val) if run.config.eval.backend == "pycocotools" else None
    hits = hits_by_class(match(detections, run.val))
    metrics = figures_of(hits, run.val, run.train.class_counts(), reference)
    log.numbers("eval", progress.step, progress.epoch, metrics)
    samples = draw_samples(detections, run.val)
    log.picture("val: truth, detections", progress.step, samples)
    before = "" if progress.epoch else "before the first step: "
    log.say(f"  {before}val AP {metrics['AP']:.3f}, AP50 {metrics['AP50']:.3f}, AP75 {metrics['AP75']:.3f}")
    value = value_of(metrics, run.config.train.metric)
    if value > progress.best or progress.epoch == progress.best_epoch:  # again, if a later checkpoint was lost
        progress.best, progress.best_epoch = value, progress.epoch
        state = _best_state(run, training, detections)
        training.unsaved = BestEvaluation(state, detections, metrics, samples)
    progress.evaluated = progress.epoch
    with _unless_full(run, "the curves"):
        directory.curves.parent.mkdir(parents=True, exist_ok=True)
        plot_curves(directory.metrics, directory.curves)
        plot_classes(directory.metrics, directory.class_curves)
    return True


def _goal(run: Run) -> Goal:
    return Goal(**run.config.eval.threshold.model_dump())


def _best_state(run: Run, training: Training, detections: Detections) -> dict:
    matching, progress = match(detections, run.val), training.progress
    deployment = Deployment.of(matching, choose_thresholds(hits_by_class(matching), _goal(run)), _goal(run))
    return {
        "model": training.detector.state_dict(),
        "deployment": deployment.state(),
        "evaluated": {"epoch": progress.best_epoch, "value": progress.best},
    }


def keep_best(run: Run, training: Training) -> None:
    """Write what was not written yet of the best evaluation. On a full disk it is kept for the next time."""
    best = training.unsaved
    if best is None:
        return
    run.save(run.directory.best, best.state)
    if run.settle():
        with _unless_full(run, "the figures of the best checkpoint"):
            write_evaluation(run.directory.evaluation, best.detections, run.val, best.metrics, best.samples)
            training.unsaved = None
    if training.unsaved:  # before the weights move on
        training.unsaved = replace(best, state=checkpoint.copied(best.state))


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
        epoch, value = _evaluated(directory, progress)
    except InputError as problem:
        log.say(f"done, but the best checkpoint is lost: {problem}")
        return
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
            provenance=provenance(run.config, str(directory.path), counts.tolist(), run.val, "val"),
            curves=read_records(directory.metrics),
        )
    log.say(f"done; these are the best checkpoint's, of epoch {epoch}: {settings.metric} {value:.3f}")
    log.say(f"on val. Report: {directory.report}; figures and pictures: {directory.evaluation}")
