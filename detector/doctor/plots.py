"""Plots of the doctor's page: histograms of sizes and shapes by frequency group, and of objects an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from detector.data.class_groups import GROUPS
from detector.doctor.class_balance import ASPECT_EDGES, SIZE_EDGES, ClassReport
from detector.pages.palette import GROUP_COLOURS
from detector.pages.svg import plot_style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (5, 3.1)  # inches: as wide as a phone
MAX_BARS = 40


def histograms(report: ClassReport) -> list[Markup]:
    """SVGs: sizes and aspects of the objects of each frequency group, and how many objects the images have."""
    with plot_style():
        return [
            _by_group(report, report.size_histogram, SIZE_EDGES, "size", "√(width × height), pixels after resizing"),
            _by_group(report, report.aspect_histogram, ASPECT_EDGES, "aspect", "height / width"),
            _objects_an_image(report.objects_an_image),
        ]


def _by_group(report: ClassReport, histogram: np.ndarray, edges: np.ndarray, name: str, label: str) -> Markup:
    """Shares of each group's objects: in a plot of counts, the head would hide the tail."""
    figure, axes = _figure(f"{name} of objects", label, "share of the group's objects")
    used = np.flatnonzero(histogram.sum(axis=0))
    first, last = (used[0], used[-1] + 1) if len(used) else (0, histogram.shape[1])
    for group in GROUPS:
        own = histogram[[g == group for g in report.groups]].sum(axis=0)
        if own.sum():
            ends = np.append(own[first:last], own[last - 1]) / own.sum()
            (line,) = axes.step(np.arange(first, last + 1), ends, where="post", color=GROUP_COLOURS[group])
            line.set_label(f"{group}: {own.sum()} objects")
    ticks = np.arange(max(first, 1), min(last, len(edges)) + 1)  # bin i lies between edges i - 1 and i
    axes.set_xticks(ticks, [f"{edges[t - 1]:.3g}" for t in ticks], rotation=45 if len(ticks) > 9 else 0)
    axes.set(ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=3)
    return svg(figure, name, f"Histogram of {label} of the objects of head, medium and tail classes")


def _objects_an_image(images: np.ndarray) -> Markup:
    """images: (n,) how many have 0, 1, 2, ... objects; drawn as at most MAX_BARS bars."""
    figure, axes = _figure("objects an image", "objects", "images")
    width = -(-len(images) // MAX_BARS) if len(images) else 1
    bars = np.pad(images, (0, -len(images) % width)).reshape(-1, width).sum(axis=1)
    axes.bar(np.arange(len(bars)) * width, bars, width=0.9 * width, align="edge" if width > 1 else "center")
    return svg(figure, "objects", "How many images have how many objects")


def _figure(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # a second to import: only for those who want the page

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return figure, axes
