"""The page of a comparison of runs: what differs from the baseline, and how sure that is."""

from __future__ import annotations

from pathlib import Path

from detector.data.class_groups import GROUPS
from detector.pages.render import render, write

CLASS = "class:"  # before the name of a class, among the figures that differ


def write_comparison(path: Path, comparison: dict) -> None:
    """Write the page, one file that needs no other.

    comparison: runs: [{name, seeds, AP, interval of AP, groups: group → {AP}}]; baseline: the name of one;
    differences: [{run, figure (AP, AP50, head, ... or class:NAME), baseline, value, difference, interval,
    significant}]; alarms: sentences. An interval is [low, high] or None.
    """
    rows = [_difference(row) for row in comparison["differences"]]
    figures = [row for row in rows if not row["of_class"]]
    of_classes = [row for row in rows if row["of_class"]]
    runs = comparison["runs"]
    others = " and ".join(run["name"] for run in runs if run["name"] != comparison["baseline"])
    html = render(
        "compare.html",
        title=f"{others} beside {comparison['baseline']}",
        sections=[("runs", "Runs"), ("figures", "Differences"), *([("classes", "Classes")] if of_classes else [])],
        runs=runs,
        groups=[group for group in GROUPS if any(group in run["groups"] for run in runs)],
        baseline=comparison["baseline"],
        alarms=comparison["alarms"],
        tables=[
            ("figures", "Differences", figures, _widest(figures)),
            ("classes", "Classes", of_classes, _widest(of_classes)),
        ],
    )
    write(path, html)


def _difference(row: dict) -> dict:
    """The row for the template: with `of_class`, `name` and `tone`, up or down where the difference is significant."""
    of_class = row["figure"].startswith(CLASS)
    tone = ("up" if row["difference"] > 0 else "down") if row["significant"] else ""
    return {**row, "of_class": of_class, "name": row["figure"].removeprefix(CLASS), "tone": tone}


def _widest(rows: list[dict]) -> float:
    """What a plot of these must reach to, on both sides of zero."""
    ends = [abs(end) for row in rows for end in (row["difference"], *(row["interval"] or ()))]
    return max(ends, default=0) or 1.0
