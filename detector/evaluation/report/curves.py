"""The curves of a run, from the lines of its metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from detector.training.class_warnings import LOW_SCORE
from detector.utils.atomic import replacing
from detector.utils.json_lines import read_json_lines

RAREST, COMMONEST = 6, 6  # classes drawn where there are more


def plot_classes(metrics_file: Path, picture: Path) -> None:
    """Gradient ratio, score on own objects and loss share of each class against epochs, from a run's metrics.jsonl, as
    a PNG: the rarest half of the classes in colour, the others in grey; of more than RAREST + COMMONEST only those.

    Without figures of classes in the file, no picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    lines = read_json_lines(metrics_file)
    epochs = [line for line in lines if line["kind"] == "classes"]
    if not epochs:
        return
    positives = {name: sum(e["per_class"][name]["positives"] for e in epochs) for name in epochs[-1]["per_class"]}
    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = dict(zip(("gradient_ratio", "score_positive", "loss_share"), figure.subplots(1, 3), strict=True))
    for name, style in _styles(positives).items():
        label = f"{name} ({positives[name] / len(epochs):.0f})".replace("$", r"\$")  # not a formula
        label = f" {label}" if label.startswith("_") else label  # which would not be in the legend
        for key, panel in panels.items():
            values = [e["per_class"][name][key] for e in epochs]
            values = [math.nan if value is None else value for value in values]
            panel.plot([e["epoch"] for e in epochs], values, label=label, **style)
    panels["gradient_ratio"].set(title="gradient ratio, positive / negative", yscale="log")
    panels["gradient_ratio"].axhline(1, color="black", linewidth=0.8, linestyle=":")
    panels["score_positive"].set(title="mean score on own objects", ylim=(0, 1))
    panels["score_positive"].axhline(LOW_SCORE, color="black", linewidth=0.8, linestyle=":")
    panels["loss_share"].set(title="share of the classification loss", ylim=(0, None))
    for panel in panels.values():
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    handles, labels = panels["loss_share"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", title="class (positive\nanchors an epoch)", fontsize=8)
    with replacing(picture) as file:
        figure.savefig(file, format="png", dpi=100)


def _styles(positives: Mapping[str, int]) -> dict[str, dict]:
    """Class → how its line is drawn, for the classes that are drawn, the commonest first."""
    order = sorted(positives, key=lambda name: -positives[name])
    if len(order) > RAREST + COMMONEST:
        order = order[:COMMONEST] + order[-RAREST:]
    common = order[: len(order) - min(RAREST, math.ceil(len(order) / 2))]
    styles = {}
    for i, name in enumerate(common):
        styles[name] = {"color": str(0.75 - 0.4 * i / len(common)), "linewidth": 1, "linestyle": ("-", "--")[i % 2]}
    for i, name in enumerate(order[len(common) :]):
        styles[name] = {"color": f"C{i}", "linewidth": 2, "marker": "o", "markersize": 3, "zorder": 3}
    return styles


def plot_curves(metrics_file: Path, picture: Path) -> None:
    """Losses, learning rate and AP against steps, from a run's metrics.jsonl, as a PNG."""
    from matplotlib.figure import Figure

    lines = read_json_lines(metrics_file)
    train = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "eval"]
    marker = "." if len(train) < 20 else None  # a few points make no line
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    losses, rate, ap = figure.subplots(1, 3)
    for name in ("loss", "loss_cls", "loss_box"):
        losses.plot([line["step"] for line in train], [line[name] for line in train], marker=marker, label=name)
    losses.set(title="loss", xlabel="step", ylim=(0, None))
    rate.plot([line["step"] for line in train], [line["lr"] for line in train], marker=marker)
    rate.set(title="learning rate", xlabel="step")
    for name in ("AP", "AP50"):
        ap.plot([line["step"] for line in evaluations], [line[name] for line in evaluations], "o-", label=name)
    ap.set(title="val", xlabel="step", ylim=(0, 1))
    losses.legend()
    ap.legend()
    with replacing(picture) as file:
        figure.savefig(file, format="png", dpi=100)
