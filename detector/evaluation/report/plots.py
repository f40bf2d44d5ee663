"""Plots of the report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from detector.pages.svg import GREY, INK, plain, plot_style, svg

HIGHLIGHTED = 6  # classes in colour where there are many
SIZE = (5, 3.1)  # inches: as wide as a phone


def training_plots(curves: list[dict], rare_first: Sequence[str]) -> list[Markup]:
    """Losses, learning rate, AP, and the scores of rare classes on their own objects, from lines of metrics.jsonl."""
    by_kind = {kind: [line for line in curves if line["kind"] == kind] for kind in ("train", "eval", "classes")}
    plots = []
    with plot_style():
        if by_kind["train"]:
            plots += [_losses(by_kind["train"]), _rate(by_kind["train"])]
        if by_kind["eval"]:
            plots.append(_ap(by_kind["eval"]))
        if by_kind["classes"]:
            plots.append(_class_scores(by_kind["classes"], rare_first))
    return plots


def precision_recall(pr_curves: dict[str, list[float]], rare_first: Sequence[str]) -> Markup:
    """All classes in one plot, the rarest in colour. pr_curves: class → precision at recall 0, 0.01, ... 1."""
    with plot_style():
        figure, axes = _figure("precision against recall at IoU 0.5", "recall", "precision")
        recall = np.linspace(0, 1, 101)
        rare = [name for name in rare_first if name in pr_curves][:HIGHLIGHTED]
        for name in pr_curves.keys() - rare:
            axes.plot(recall, pr_curves[name], color=GREY, linewidth=0.8, alpha=0.6)
        for name in reversed(rare):
            axes.plot(recall, pr_curves[name], linewidth=1.8, label=plain(name))
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        if rare:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        return svg(figure, "pr", "Precision against recall of all classes, the rarest in colour")


def reliability(calibration: dict) -> Markup:
    """What share of the detections of a score are right, before and after calibration, and how many have it."""
    from matplotlib.figure import Figure

    with plot_style():
        figure = Figure(figsize=(5, 4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], "--", color=INK, linewidth=0.8, label="as sure as right")
        for key, name, marker in (("bins", "as trained", "o-"), ("calibrated_bins", "calibrated", "s-")):
            bins = [b for b in calibration.get(key) or [] if b["count"]]
            if bins:
                scores = [b["score"] for b in bins]
                above.plot(scores, [b["precision"] for b in bins], marker, markersize=4, label=name)
                below.plot(scores, [b["count"] for b in bins], marker, markersize=3)
        above.set(ylabel="share that is right", ylim=(0, 1.02), xlim=(0, 1))
        above.legend(loc="upper left")
        below.set(ylabel="detections", xlabel="score", yscale="log")
        below.yaxis.set_major_formatter(lambda count, _: f"{count:g}")
        below.yaxis.set_minor_formatter(lambda count, _: "")
        return svg(figure, "reliability", "Share of right detections against score, and detections of each score")


def _figure(title: str, xlabel: str, ylabel: str = ""):
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def _epochs(title: str):
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(title, "epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _losses(lines: list[dict]) -> Markup:
    figure, axes = _figure("loss", "step")
    marker = "." if len(lines) < 20 else None  # a few points make no line
    for name in ("loss", "loss_cls", "loss_box"):
        axes.plot([line["step"] for line in lines], [line[name] for line in lines], marker=marker, label=name)
    # the first steps may be far above all others
    top = np.nanpercentile([line["loss"] for line in lines], 99) if len(lines) >= 20 else None
    axes.set(ylim=(0, top * 1.1 if top and np.isfinite(top) else None))
    axes.legend()
    return svg(figure, "losses", "Losses against training steps")


def _rate(lines: list[dict]) -> Markup:
    figure, axes = _figure("learning rate", "step")
    axes.plot([line["step"] for line in lines], [line["lr"] for line in lines], marker="." if len(lines) < 20 else None)
    axes.set(ylim=(0, None))
    return svg(figure, "rate", "Learning rate against training steps")


def _ap(lines: list[dict]) -> Markup:
    figure, axes = _epochs("AP on val")
    for name in ("AP", "AP50"):
        axes.plot([line["epoch"] for line in lines], [line[name] for line in lines], "o-", markersize=3, label=name)
    axes.set(ylim=(0, 1))
    axes.legend(loc="upper left")
    return svg(figure, "ap", "AP and AP50 on val against epochs")


def _class_scores(lines: list[dict], rare_first: Sequence[str]) -> Markup:
    figure, axes = _epochs("mean score on own objects, the rarest classes in colour")
    names = [name for name in rare_first if name in lines[-1]["per_class"]]
    for position, name in reversed(list(enumerate(names))):
        points = [(line["epoch"], line["per_class"].get(name, {}).get("score_positive")) for line in lines]
        points = [p for p in points if p[1] is not None]
        if not points:
            continue
        if position < HIGHLIGHTED:
            axes.plot(*zip(*points, strict=True), linewidth=1.8, marker=".", label=plain(name))
        else:
            axes.plot(*zip(*points, strict=True), color=GREY, linewidth=0.8, alpha=0.6)
    axes.set(ylim=(0, 1))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", ncols=2)
    return svg(figure, "scores", "Mean score of each class on its own objects against epochs")
