"""A comparison of runs (`detector/evaluation/compare.py`) as text and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from detector.data.class_groups import GROUPS
from detector.evaluation.compare import Alarm, Comparison, Difference, Entry, FigureName
from detector.pages.render import render, write
from detector.utils.text import LONGEST_VALUE, counted, printable


def comparison_lines(comparison: Comparison) -> list[str]:
    """The tables, the verdict and the alarms as lines of text."""
    lines = [f"evaluated on {comparison.evaluated_on}", "run, seeds, AP with its 95 % interval, and the groups"]
    for entry in comparison.entries:
        ap, ends = entry.figures[FigureName("AP")], entry.interval(FigureName("AP"))
        groups = "  ".join(f"{name} {value:.3f}" for name, value in _groups(entry).items())
        lines.append(f"  {entry.name}  {entry.seeds}  {ap.value:.3f} {_ends(ends)}  {groups}")
    width = max(len(row.figure.name) for row in comparison.differences)
    for entry in comparison.entries[1:]:
        lines.append(f"{entry.name}: settings that differ from {comparison.baseline.name}")
        lines += [f"  {path}: {before} -> {now}" for path, before, now in setting_rows(comparison, entry)]
        lines.append(f"{entry.name} beside {comparison.baseline.name}: difference, with its 95 % interval")
        for row in (row for row in comparison.differences if row.run == entry.name):
            lines.append(
                f"  {row.figure.name:<{width}}  {row.baseline:.3f} -> {row.value:.3f}  {row.difference:+.3f} "
                f"{_ends(row.interval, '+')}{'  more than chance' if row.significant else ''}"
            )
    lines.append(interval_note(comparison))
    lines += [f"verdict: {sentence}" for _, sentence in verdicts(comparison)]
    return [*lines, *(f"warning: {alarm_text(alarm)}" for alarm in comparison.alarms)]


def verdicts(comparison: Comparison) -> list[tuple[str, str]]:
    """(tone, sentence) for each run but the baseline: whether it is better, by how much, and if by more than chance.

    The tone is good, bad or "". At the end stands what the intervals leave out.
    """
    sentences = [_verdict(comparison, entry) for entry in comparison.entries[1:]]
    single = [entry.name for entry in comparison.entries if entry.seeds == 1]
    if sentences and single:
        text = (
            f"Only one seed of {' and '.join(single)}: how far another seed would move the figures is not counted. "
            "With one seed, 'more than chance' counts the images only."
        )
        sentences.append(("", text))
    return sentences


def _verdict(comparison: Comparison, entry: Entry) -> tuple[str, str]:
    row, baseline, tone = comparison.difference(entry, FigureName("AP")), comparison.baseline.name, ""
    sizes = f"AP {row.value:.3f} against {row.baseline:.3f}"
    if row.difference == 0:
        text = f"{entry.name} and {baseline} have the same AP, {row.value:.3f}."
    elif row.interval is None:
        text = f"{entry.name} has {sizes} of {baseline}; these images cannot tell whether that is chance."
    else:
        sure = f"95 % sure{_seeds_note(row, entry, comparison.baseline)}"
        ends = f"the difference is {row.interval[0]:+.3f} to {row.interval[1]:+.3f}, {sure}"
        text = f"{entry.name} and {baseline} do not differ by more than chance: {sizes}; {ends}."
        if _counts(row):
            tone, word = ("good", "better") if row.difference > 0 else ("bad", "worse")
            size = f"{abs(row.difference):.3f}"
            text = f"{entry.name} is {word} than {baseline} by {size} AP ({sizes}), more than chance: {ends}."
    groups = [comparison.difference(entry, figure) for figure in map(FigureName, GROUPS) if figure in entry.figures]
    changed = [f"{group.figure.name} {group.difference:+.3f}" for group in groups if _counts(group)]
    return tone, f"{text} Groups that differ by more than chance: {', '.join(changed)}." if changed else text


def _seeds_note(row: Difference, entry: Entry, baseline: Entry) -> str:
    """The seeds and degrees of freedom in brackets, if there are several seeds."""
    if row.chance is None or entry.seeds == baseline.seeds == 1:
        return ""
    return f" (seeds: {entry.seeds} against {baseline.seeds}; degrees of freedom: {row.chance.degrees:.1f})"


def interval_note(comparison: Comparison) -> str:
    """What the intervals of the differences count."""
    seeds = ", and of the seeds where there are several" if any(entry.seeds > 1 for entry in comparison.entries) else ""
    return f"The intervals count the chance of the images{seeds}; docs/evaluation.md says how."


def _counts(row: Difference) -> bool:
    """Whether it is more than chance, and not printed as 0.000."""
    return row.significant and abs(row.difference) >= 0.0005


def setting_rows(comparison: Comparison, entry: Entry) -> list[tuple[str, str, str]]:
    """(dotted path, the baseline's value, the entry's) of the settings that differ, as text."""
    changes = entry.changes_from(comparison.baseline)
    return [(path, _as_written(before), _as_written(now)) for path, before, now in changes]


def _as_written(value: object) -> str:
    """A setting's value as one writes it in a config."""
    return printable(value if isinstance(value, str) else json.dumps(value), LONGEST_VALUE)


def alarm_text(alarm: Alarm) -> str:
    """The alarm as a sentence."""
    fallen = ", ".join(f"{row.figure.name} by {-row.difference:.3f}" for row in alarm.fallen)
    tests = f"Holm's test of {counted(alarm.tested, 'class')}"
    return f"{alarm.run}: AP rose by {alarm.rise:.3f}, but head classes fell by more than chance ({tests}): {fallen}"


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page of a comparison: one file that needs no other."""
    baseline, others = comparison.baseline.name, [entry.name for entry in comparison.entries[1:]]
    figures = [row for row in comparison.differences if not row.figure.of_class]
    classes = [row for row in comparison.differences if row.figure.of_class]
    html = render(
        "compare.html",
        title=f"{' and '.join(others)} beside {baseline}",
        sections=[
            ("verdict", "Verdict"),
            ("runs", "Runs"),
            ("settings", "Settings"),
            ("figures", "Differences"),
            *([("classes", "Classes")] if classes else []),
        ],
        evaluated_on=comparison.evaluated_on,
        verdict=verdicts(comparison),
        settings=[(entry.name, row) for entry in comparison.entries[1:] for row in setting_rows(comparison, entry)],
        runs=[_run_row(entry) for entry in comparison.entries],
        groups=[group for group in GROUPS if any(group in _groups(entry) for entry in comparison.entries)],
        baseline=baseline,
        intervals=interval_note(comparison),
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
        "interval": entry.interval(FigureName("AP")),
        "groups": _groups(entry),
    }


def _groups(entry: Entry) -> dict[str, float]:
    """AP of each group that has objects."""
    return {
        group: float(entry.figures[FigureName(group)].value) for group in GROUPS if FigureName(group) in entry.figures
    }


def _plot_end(rows: Sequence[Difference]) -> float:
    """How far a plot of these must reach on either side of 0."""
    ends = [abs(end) for row in rows for end in (row.difference, *(row.interval or ()))]
    return max(ends, default=0) or 1.0


def _ends(interval: list[float] | None, sign: str = "") -> str:
    return "[-]" if interval is None else f"[{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"
