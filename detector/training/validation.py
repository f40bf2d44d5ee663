"""What a training does on val: an evaluation after an epoch, and the report when it is over."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from detector.data.class_groups import class_groups
from detector.evaluation.assess import Assessment, assess, write_evaluation, write_metrics
from detector.evaluation.deployment import Deployment
from detector.evaluation.detections import Detections
from detector.evaluation.metrics.coco import value_of
from detector.evaluation.metrics.score_thresholds import Goal, choose_thresholds
from detector.evaluation.report.curves import plot_classes, plot_curves
from detector.evaluation.report.history import still_rises
from detector.evaluation.report.page import write_report
from detector.evaluation.report.provenance import provenance
from detector.evaluation.report.samples import draw_samples
from detector.evaluation.report.tables import tables
from detector.inference.evaluate import detect_split
from detector.models.build import build_postprocess
from detector.training.deadline import Deadline
from detector.training.resume import read_evaluated
from detector.training.state import Run
from detector.utils.disk import warn_if_unwritable
from detector.utils.errors import InputError
from detector.utils.json_lines import read_json_lines
from detector.utils.signals import StopRequest
from detector.utils.text import command, counted


def evaluate_epoch(run: Run, stop: StopRequest, deadline: Deadline) -> bool:
    """Evaluate on val, log the figures, and hand a new best checkpoint to the saver.

    False if `stop` came before the last image: nothing has changed then. The deadline is not looked at.
    """
    progress, log = run.progress, run.log
    postprocess = build_postprocess(run.config.model.postprocess)
    detections = detect_split(run.training.detector, postprocess, run.val, run.config, run.device, stop)
    if stop.signum:
        return False
    assessment = assess(detections, run.val, run.train.class_counts(), run.config.eval.backend)
    figures = assessment.figures
    log.numbers("eval", progress.step, progress.epoch, figures)
    samples = draw_samples(detections, run.val)
    log.picture("val: truth, detections", progress.step, samples)
    before = "" if progress.epoch else "before the first step: "
    log.say(f"  {before}val AP {figures['AP']:.3f}, AP50 {figures['AP50']:.3f}, AP75 {figures['AP75']:.3f}")
    value = value_of(figures, run.config.train.metric)
    if value > progress.best or progress.epoch == progress.best_epoch:  # the same epoch again: best.pt was lost
        progress.best, progress.best_epoch = value, progress.epoch
        write = partial(write_evaluation, run.directory.evaluation, detections, run.val, figures, samples)
        run.saver.remember_best(_best_state(run, assessment), write)
    progress.evaluated = progress.epoch
    with warn_if_unwritable("eval/curves.png", log.say):
        run.directory.curves.parent.mkdir(parents=True, exist_ok=True)
        plot_curves(run.directory.metrics, run.directory.curves)
        groups = class_groups(run.train.class_counts())
        by_class = dict(zip(run.train.class_names, groups, strict=True))
        plot_classes(run.directory.metrics, run.directory.class_curves, by_class)
    return True


def conclude(run: Run) -> None:
    """The tables, metrics.json and report.html of the best evaluation, and where to look at them."""
    settings, directory, log = run.config.train, run.directory, run.log
    if run.progress.evaluated < settings.epochs:  # only for want of patience
        assert settings.patience is not None
        epochs = counted(settings.patience, "epoch")
        log.say(f"stopped early: {settings.metric} did not rise for {epochs} (train.patience)")
    try:
        epoch, value = read_evaluated(directory)
    except InputError as problem:
        log.say(f"done, but the best checkpoint is lost: {problem}")
        return
    try:
        results = json.loads((directory.evaluation / "detections.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        again = command("tools/eval.py", directory.path)
        log.say(f"done, but the best checkpoint's figures are missing; to get them: {again}")
        return
    counts = run.train.class_counts()
    assessment = assess(Detections.from_results(results, run.val), run.val, counts, run.config.eval.backend)
    goal = _goal(run)
    thresholds = choose_thresholds(assessment.hits, goal)
    metrics = assessment.analysis(thresholds)
    curves = read_json_lines(directory.metrics)
    doubts = Deployment.of(assessment.matching, thresholds, goal).threshold_lines()
    log.say("\n".join(filter(None, [tables(metrics), still_rises(curves), *doubts])))
    with warn_if_unwritable("the report", log.say):
        write_metrics(directory.evaluation, metrics)
        write_report(
            directory.report,
            metrics=metrics,
            matching=assessment.matching,
            provenance=provenance(run.config, str(directory.path), counts.tolist(), run.val, "val", curves),
            curves=curves,
        )
    log.say(f"done; these figures are of the best checkpoint, epoch {epoch}, on val: {settings.metric} {value:.3f}")
    log.say(f"report: {directory.report}; figures and pictures: {directory.evaluation}")


def _goal(run: Run) -> Goal:
    return Goal(**run.config.eval.threshold.model_dump())


def _best_state(run: Run, assessment: Assessment) -> dict[str, Any]:
    """What best.pt holds beside the contents of every checkpoint."""
    return {
        "model": run.training.detector.state_dict(),
        "deployment": assessment.deployment(_goal(run)).state(),
        "evaluated": {"epoch": run.progress.best_epoch, "value": run.progress.best},
    }
