"""The curves of a run, drawn from the lines of its metrics.jsonl: for its PNG files and for report.html alike.

The `draw_...` functions draw onto matplotlib axes; colours and fonts are those of the style that is set around them.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.pages.palette import CYCLE, GREY, GROUP_COLOURS
from detector.pages.svg import plain
from detector.utils.atomic import replacing
from detector.utils.json_lines import read_json_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOW_SCORE = 0.1  # mean score on its own objects below which a training warns of a class
RAREST, COMMONEST = 6, 6  # classes drawn where there are more
CLASS_FIGURES: dict[str, dict[str, Any]] = {  # of each class (losses/class_statistics.py) → how its axes are set
    "gradient_ratio": {"title": "gradient ratio, positive / negative", "yscale": "log"},
    "score_positive": {"title": "mean score on own objects", "ylim": (0, 1)},
    "loss_share": {"title": "share of the classification loss", "ylim": (0, None)},
}
DOTTED_LINES = {"gradient_ratio": 1.0, "score_positive": LOW_SCORE}
DASHES, MARKERS = ("-", "--", ":"), ("o", "s", "^", "D", "v", "P")  # tell classes of one group apart
PNG_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a class may be named $x$
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.prop_cycle": CYCLE,
}


@dataclass(frozen=True)
class ClassLine:
    """How the line of a class is drawn, the same in every plot."""

    name: str
    label: str  # the class and its positive anchors an epoch
    group: str | None  # whose colour it has; None: unknown, drawn in grey
    rare: bool  # drawn strongly
    style: dict[str, Any]  # arguments of `Axes.plot`


def plot_curves(metrics_file: Path, picture: Path) -> None:
    """Write a PNG of losses, learning rate and AP, from a run's metrics.jsonl. Raises OSError."""
    lines = read_json_lines(metrics_file)
    train, evaluations = of_kind(lines, "train"), of_kind(lines, "eval")
    with _three_panels(picture, (12, 3.6)) as (_, (losses, rate, ap)):
        draw_losses(losses, train)
        draw_learning_rate(rate, train)
        draw_ap(ap, evaluations)


def plot_classes(metrics_file: Path, picture: Path, groups: Mapping[str, str]) -> None:
    """Write a PNG of CLASS_FIGURES of each class, from a run's metrics.jsonl; none if the file has no such figures.

    Classes have the colour of their group; the lines of the rarest are the strongest. groups: class → head, medium or
    tail. Raises OSError.
    """
    from matplotlib.patches import Patch

    epochs = of_kind(read_json_lines(metrics_file), "classes")
    if not epochs:
        return
    with _three_panels(picture, (13, 4)) as (figure, panels):
        for name, axes in zip(CLASS_FIGURES, panels, strict=True):
            lines = draw_class_figure(axes, epochs, name, groups)
        title = "class (positive\nanchors an epoch)"
        figure.legend(handles=panels[0].lines[: len(lines)], loc="outside right center", title=title, fontsize=8)
        shown = [group for group in GROUP_COLOURS if group in {line.group for line in lines}]
        keys = [Patch(color=GROUP_COLOURS[group], label=f"{group} classes") for group in shown]
        figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), fontsize=8, frameon=False)


def of_kind(lines: Sequence[dict], kind: str) -> list[dict]:
    """The lines of metrics.jsonl that are of one kind."""
    return [line for line in lines if line["kind"] == kind]


def draw_losses(axes: Axes, train: Sequence[dict]) -> None:
    """The loss and its parts against steps. train: the lines of kind `train`."""
    names = [name for line in train[-1:] for name in line if name == "loss" or name.startswith("loss_")]
    for name in names:
        axes.plot(_column(train, "step"), _column(train, name), marker=_marker(train), label=name)
    # the first steps may be far above all others
    top = np.nanpercentile(_column(train, "loss"), 99) if len(train) >= 20 else None
    axes.set(title="loss", xlabel="step", ylim=(0, top * 1.1 if top and np.isfinite(top) else None))
    if names:
        axes.legend()


def draw_learning_rate(axes: Axes, train: Sequence[dict]) -> None:
    """Learning rate against steps. train: the lines of kind `train`."""
    axes.plot(_column(train, "step"), _column(train, "lr"), marker=_marker(train))
    axes.set(title="learning rate", xlabel="step", ylim=(0, None))


def draw_ap(axes: Axes, evaluations: Sequence[dict]) -> None:
    """AP and AP50 against epochs. evaluations: the lines of kind `eval`."""
    for name in ("AP", "AP50"):
        axes.plot(_column(evaluations, "epoch"), _column(evaluations, name), "o-", markersize=3, label=name)
    axes.set(title="AP on val", ylim=(0, 1))
    axes.legend(loc="upper left")
    _count_epochs(axes)


def draw_class_figure(axes: Axes, epochs: Sequence[dict], figure: str, groups: Mapping[str, str]) -> list[ClassLine]:
    """One of CLASS_FIGURES against epochs, a line for each of `class_lines`, which are returned.

    epochs: the lines of kind `classes`, at least one. An epoch without a value is a gap in the line. groups: class →
    head, medium or tail.
    """
    lines = class_lines(epochs, groups)
    for line in lines:
        rows = [epoch["per_class"][line.name] for epoch in epochs]
        axes.plot(_column(epochs, "epoch"), _column(rows, figure), label=line.label, **line.style)
    if figure in DOTTED_LINES:
        axes.axhline(DOTTED_LINES[figure], color="0.5", linewidth=0.8, linestyle=":")
    axes.set(**CLASS_FIGURES[figure])
    if axes.get_yscale() == "log":
        label_powers(axes)
    _count_epochs(axes)
    return lines


def label_powers(axes: Axes) -> None:
    """Label a logarithmic y axis 0.1, 1, 10 ...; matplotlib would write formulas, which the styles do not parse."""
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: "")


def class_lines(epochs: Sequence[dict], groups: Mapping[str, str]) -> list[ClassLine]:
    """The classes to draw, by falling number of positive anchors: all, or the RAREST and COMMONEST of many."""
    positives = {
        name: sum(epoch["per_class"][name]["positives"] for epoch in epochs) for name in epochs[-1]["per_class"]
    }
    names = sorted(positives, key=lambda name: -positives[name])
    if len(names) > RAREST + COMMONEST:
        names = names[:COMMONEST] + names[-RAREST:]
    num_common = len(names) - min(RAREST, math.ceil(len(names) / 2))
    lines = []
    for i, name in enumerate(names):
        label = f"{legend_name(name)} ({positives[name] / len(epochs):.0f})"
        group, rare = groups.get(name), i >= num_common
        style = line_style(group, i - num_common if rare else i, strong=rare)
        if rare:
            style["marker"] = MARKERS[i - num_common]
        lines.append(ClassLine(name, label, group, rare, style))
    return lines


def legend_name(name: str) -> str:
    """The name of a class, short, for a legend."""
    text = plain(name)
    return f" {text}" if text.startswith("_") else text  # matplotlib leaves _names out


def line_style(group: str | None, number: int, strong: bool) -> dict[str, Any]:
    """Arguments of `Axes.plot` for the line of a class, one of several numbered from 0: the colour is the group's."""
    paler, dashes = divmod(number, len(DASHES))
    style = {"color": GROUP_COLOURS.get(group or "", GREY), "linestyle": DASHES[dashes], "alpha": 1 - 0.45 * paler}
    return style | ({"linewidth": 1.8, "markersize": 4, "zorder": 3} if strong else {"linewidth": 0.9})


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """The values of a key, NaN where there is none."""
    return [math.nan if row.get(key) is None else row[key] for row in rows]


def _marker(rows: Sequence[dict]) -> str | None:
    return "." if len(rows) < 20 else None  # a few points make no line


def _count_epochs(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


@contextlib.contextmanager
def _three_panels(picture: Path, inches: tuple[float, float]) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """A figure with three axes side by side, written as a PNG of 100 pixels per inch afterwards."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(PNG_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=inches, layout="constrained")
        yield figure, list(figure.subplots(1, 3))
        with replacing(picture) as file:
            figure.savefig(file, format="png", dpi=100)
