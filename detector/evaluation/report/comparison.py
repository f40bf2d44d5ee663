"""A comparison of runs (`detector/evaluation/compare.py`) as text and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detector.data.class_groups import GROUPS
from detector.evaluation.compare import Alarm, Comparison, Difference, Entry, FigureName
from detector.pages.render import render, write


def comparison_lines(comparison: Comparison) -> list[str]:
    """The tables and the alarms as lines of text."""
    lines = ["run, seeds, AP with its 95 % interval, and the groups"]
    for entry in comparison.entries:
        ap = entry.figures[FigureName("AP")]
        groups = "  ".join(f"{name} {value:.3f}" for name, value in _groups(entry).items())
        lines.append(f"  {entry.name}  {entry.seeds}  {ap.value:.3f} {_ends(ap.interval())}  {groups}")
    width = max(len(row.figure.name) for row in comparison.differences)
    for entry in comparison.entries[1:]:
        lines.append(f"{entry.name} beside {comparison.baseline.name}: difference, with its 95 % interval")
        for row in (row for row in comparison.differences if row.run == entry.name):
            lines.append(
                f"  {row.figure.name:<{width}}  {row.baseline:.3f} -> {row.value:.3f}  {row.difference:+.3f} "
                f"{_ends(row.interval, '+')}{'  more than chance' if row.significant else ''}"
            )
    if any(entry.seeds == 1 for entry in comparison.entries):
        lines.append("a run with one seed: the intervals do not include how much another seed would change")
    return [*lines, *(f"warning: {alarm_text(alarm)}" for alarm in comparison.alarms)]


def alarm_text(alarm: Alarm) -> str:
    """The alarm as a sentence."""
    fallen = ", ".join(f"{row.figure.name} by {-row.difference:.3f}" for row in alarm.fallen)
    return f"{alarm.run}: AP rose by {alarm.rise:.3f}, but classes of the head fell: {fallen}"


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page of a comparison: one file that needs no other."""
    baseline, others = comparison.baseline.name, [entry.name for entry in comparison.entries[1:]]
    figures = [row for row in comparison.differences if not row.figure.of_class]
    classes = [row for row in comparison.differences if row.figure.of_class]
    html = render(
        "compare.html",
        title=f"{' and '.join(others)} beside {baseline}",
        sections=[("runs", "Runs"), ("figures", "Differences"), *([("classes", "Classes")] if classes else [])],
        runs=[_run_row(entry) for entry in comparison.entries],
        groups=[group for group in GROUPS if any(group in _groups(entry) for entry in comparison.entries)],
        baseline=baseline,
        alarms=[alarm_text(alarm) for alarm in comparison.alarms],
        tables=[
            ("figures", "Differences", figures, _plot_end(figures)),
            ("classes", "Classes", classes, _plot_end(classes)),
        ],
    )
    write(path, html)


def _run_row(entry: Entry) -> dict:
    ap = entry.figures[FigureName("AP")]
    return {
        "name": entry.name,
        "seeds": entry.seeds,
        "AP": ap.value,
        "interval": ap.interval(),
        "groups": _groups(entry),
    }


def _groups(entry: Entry) -> dict[str, float]:
    """AP of each group that has objects."""
    return {group: entry.figures[FigureName(group)].value for group in GROUPS if FigureName(group) in entry.figures}


def _plot_end(rows: Sequence[Difference]) -> float:
    """How far a plot of these must reach on either side of 0."""
    ends = [abs(end) for row in rows for end in (row.difference, *(row.interval or ()))]
    return max(ends, default=0) or 1.0


def _ends(interval: list[float] | None, sign: str = "") -> str:
    return "[-]" if interval is None else f"[{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"
