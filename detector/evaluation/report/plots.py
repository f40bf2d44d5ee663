"""The plots of report.html, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from detector.evaluation.metrics.average_precision import RECALLS
from detector.evaluation.report.curves import (
    draw_ap,
    draw_class_figure,
    draw_learning_rate,
    draw_losses,
    label_powers,
    legend_name,
    line_style,
    of_kind,
)
from detector.pages.palette import INK
from detector.pages.svg import plot_style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

HIGHLIGHTED = 6  # of the rarest classes are drawn strongly, and named
INCHES = (5, 3.1)  # as wide as a phone


def training_plots(lines: Sequence[dict], groups: Mapping[str, str]) -> list[Markup]:
    """Losses, learning rate, AP, and the scores of classes on their own objects: those that `lines` have.

    lines: of a run's metrics.jsonl. groups: class → head, medium or tail.
    """
    train, evaluations, classes = (of_kind(lines, kind) for kind in ("train", "eval", "classes"))
    plots = []
    if train:
        plots.append(_plot("losses", "Losses against training steps", lambda axes: draw_losses(axes, train)))
        alt = "Learning rate against training steps"
        plots.append(_plot("rate", alt, lambda axes: draw_learning_rate(axes, train)))
    if evaluations:
        plots.append(_plot("ap", "AP and AP50 on val against epochs", lambda axes: draw_ap(axes, evaluations)))
    if classes:
        alt = "Mean score of each class on its own objects against epochs"
        plots.append(_plot("scores", alt, lambda axes: _draw_scores(axes, classes, groups)))
    return plots


def _plot(name: str, alt: str, draw: Callable[[Axes], None]) -> Markup:
    """A plot for the page with what `draw` puts onto its axes. name, alt: see `svg`."""
    with plot_style():
        figure, axes = _figure()
        draw(axes)
        return svg(figure, name, alt)


def _draw_scores(axes: Axes, classes: Sequence[dict], groups: Mapping[str, str]) -> None:
    """The mean score on own objects; the legend names only the rare classes, as there is little room."""
    classes_drawn = draw_class_figure(axes, classes, "score_positive", groups)
    rare = [line for line, drawn in zip(axes.lines, classes_drawn, strict=False) if drawn.rare]
    _legend_below(axes, rare)


def _legend_below(axes: Axes, handles: Sequence[Line2D]) -> None:
    """Names may be as long as the plot is wide."""
    axes.figure.legend(handles=handles, loc="outside lower left", ncols=2 if len(handles) > 3 else 1)


def precision_recall(pr_curves: dict[str, list[float]], rare_first: Sequence[str], groups: Mapping[str, str]) -> Markup:
    """All classes in one plot, in the colours of their groups, the rarest the strongest.

    pr_curves: class → 101 precisions at recall 0, 0.01 ... 1. rare_first: the classes, the rarest first. groups: class
    → head, medium or tail.
    """
    with plot_style():
        figure, axes = _figure()
        rare = [name for name in rare_first if name in pr_curves][:HIGHLIGHTED]
        for name in (name for name in pr_curves if name not in rare):
            axes.plot(RECALLS, pr_curves[name], **line_style(groups[name], 3, strong=False))
        strong = [
            axes.plot(RECALLS, pr_curves[name], label=legend_name(name), **line_style(groups[name], i, strong=True))[0]
            for i, name in enumerate(rare)
        ]
        axes.set(title="precision against recall at IoU 0.5", xlabel="recall", ylabel="precision")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        _legend_below(axes, strong)
        return svg(figure, "pr", "Precision against recall of all classes, the rarest drawn strongly")


def reliability(calibration: dict) -> Markup:
    """The share of right detections against the score, before and after calibration, and how many have each score.

    calibration: see `calibration_figures`.
    """
    from matplotlib.figure import Figure

    with plot_style():
        figure = Figure(figsize=(5, 4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], "--", color=INK, linewidth=0.8, label="perfect")
        for key, name, marker in (("bins", "as trained", "o-"), ("calibrated_bins", "calibrated", "s-")):
            bins = [b for b in calibration.get(key) or [] if b["count"]]
            if bins:
                scores = [b["score"] for b in bins]
                above.plot(scores, [b["precision"] for b in bins], marker, markersize=4, label=name)
                below.plot(scores, [b["count"] for b in bins], marker, markersize=3)
        above.set(ylabel="share that is right", ylim=(0, 1.02), xlim=(0, 1))
        above.legend(loc="upper left")
        below.set(ylabel="detections", xlabel="score", yscale="log")
        label_powers(below)
        return svg(figure, "reliability", "Share of right detections against score, and detections of each score")


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    return figure, figure.subplots()
