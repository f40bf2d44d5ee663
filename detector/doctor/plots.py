"""Plots of the doctor's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from detector.data.class_groups import GROUPS
from detector.pages.svg import plot_style, svg

if TYPE_CHECKING:
    from detector.doctor.class_balance import ClassReport

SIZE = (5, 3.1)  # inches: as wide as a phone
MOST_BARS = 40


def histograms(report: ClassReport) -> list[Markup]:
    """Sizes and aspects of the objects of each group of classes, as fed, and how many objects an image has."""
    from detector.doctor.class_balance import ASPECT_EDGES, SIZE_EDGES

    with plot_style():
        return [
            _by_group(report, report.size_histogram, SIZE_EDGES, "size", "√(width × height), pixels as fed"),
            _by_group(report, report.aspect_histogram, ASPECT_EDGES, "aspect", "height / width"),
            _objects_an_image(report.objects_an_image),
        ]


def _by_group(report: ClassReport, histogram: np.ndarray, edges: np.ndarray, name: str, label: str) -> Markup:
    """Share of each group's objects in each bin: in counts, the head would hide the tail."""
    figure, axes = _figure(f"{name} of objects", label, "share of the group's objects")
    used = np.flatnonzero(histogram.sum(axis=0))
    first, last = (used[0], used[-1] + 1) if len(used) else (0, histogram.shape[1])
    for group in GROUPS:
        own = histogram[[g == group for g in report.groups]].sum(axis=0)
        if own.sum():
            ends = np.append(own[first:last], own[last - 1]) / own.sum()
            axes.step(np.arange(first, last + 1), ends, where="post", label=f"{group}: {own.sum()} objects")
    ticks = np.arange(max(first, 1), min(last, len(edges)) + 1)  # bin i lies between edges i - 1 and i
    axes.set_xticks(ticks, [f"{edges[t - 1]:.3g}" for t in ticks], rotation=45 if len(ticks) > 9 else 0)
    axes.set(ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=3)
    return svg(figure, name, f"Histogram of {label} of the objects of head, medium and tail classes")


def _objects_an_image(images: np.ndarray) -> Markup:
    """images: how many have 0, 1, 2, ... objects; in few bars."""
    figure, axes = _figure("objects an image", "objects", "images")
    width = -(-len(images) // MOST_BARS) if len(images) else 1
    bars = np.pad(images, (0, -len(images) % width)).reshape(-1, width).sum(axis=1)
    axes.bar(np.arange(len(bars)) * width, bars, width=0.9 * width, align="edge" if width > 1 else "center")
    return svg(figure, "objects", "How many images have how many objects")


def _figure(title: str, xlabel: str, ylabel: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return figure, axes
