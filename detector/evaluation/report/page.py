"""report.html: what an evaluation found and what it did not, in sentences, tables, plots and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detector.data.class_groups import GROUPS
from detector.evaluation.metrics.confusion import counts_by_class
from detector.evaluation.metrics.errors import KINDS, SUMS
from detector.evaluation.metrics.matching import Matching
from detector.evaluation.metrics.score_thresholds import WORKS
from detector.evaluation.report.gallery import DETECTION, OBJECT, OTHER, galleries
from detector.evaluation.report.plots import precision_recall, reliability, training_plots
from detector.evaluation.report.provenance import Provenance
from detector.evaluation.report.tables import ROWS
from detector.evaluation.report.verdict import costs_most, verdict
from detector.pages.render import is_known, render, write

MATRIX_CLASSES = 30  # with more classes, the page shows the most confused pairs instead of a matrix
CONFUSED_PAIRS = 40


def write_report(
    path: Path, *, metrics: dict, matching: Matching, provenance: Provenance, curves: Sequence[dict]
) -> None:
    """Write the page: one file that needs no other.

    metrics: what `analyse` says of the matching. curves: the lines of a run's metrics.jsonl; none: of no run.
    """
    per_class, calibration = metrics["per_class"], metrics["calibration"]
    rare_first = rarest_first(per_class)
    measured = [name for name in rare_first if is_known(per_class[name]["AP50"])]
    pr_curves = {name: metrics["pr_curves"][name] for name in measured}
    group_of = {name: row["group"] for name, row in per_class.items()}
    training = training_plots(curves, group_of)
    counts = counts_by_class(metrics["confusion"]["names"], metrics["confusion"]["counts"])
    html = render(
        "report.html",
        title=provenance["title"],
        provenance=provenance["rows"],
        findings=provenance["findings"],
        sections=_sections(bool(training)),
        metrics=metrics,
        groups=_groups(metrics),
        verdict=verdict(metrics, curves),
        training=training,
        coco_rows=ROWS,
        works=WORKS,
        classes=[{"name": name, "worst": costs_most(counts[name]), **per_class[name]} for name in rare_first],
        pr_plot=precision_recall(pr_curves, rare_first, group_of) if pr_curves else None,
        pr_small=[_small_curve(name, pr_curves[name], per_class[name]) for name in measured],
        confusion=_matrix(metrics["confusion"]) if len(per_class) <= MATRIX_CLASSES else None,
        confused=_confused_pairs(metrics["confusion"]),
        errors=_error_table(metrics),
        calibration=calibration,
        reliability=reliability(calibration) if calibration["bins"] else None,
        gallery=galleries(matching, per_class, rare_first),
        colours={"object": OBJECT, "detection": DETECTION, "other": OTHER},
    )
    write(path, html)


def rarest_first(per_class: dict[str, dict]) -> list[str]:
    """Class names by their number of training boxes or, where it is not known, of objects here."""

    def count(name: str) -> tuple[int, int]:
        row = per_class[name]
        return (row["num_gt"] if row["num_train"] is None else row["num_train"]), row["num_gt"]

    return sorted(per_class, key=count)


def _sections(training: bool) -> list[tuple[str, str]]:
    """(id, name) of the sections of the page, for the links at its top."""
    return [
        ("verdict", "Verdict"),
        ("provenance", "What was trained"),
        *([("training", "Training")] if training else []),
        ("coco", "COCO figures"),
        ("groups", "Head, medium, tail"),
        ("classes", "Classes"),
        ("pr", "Precision and recall"),
        ("confusion", "Confusion"),
        ("errors", "Errors"),
        ("calibration", "Calibration"),
        ("gallery", "Misses and false positives"),
        ("suspects", "Suspect labels"),
    ]


def _groups(metrics: dict) -> list[tuple[str, dict]]:
    """The groups that have classes, the commonest first."""
    return [(name, metrics["groups"][name]) for name in GROUPS if metrics["groups"][name]["classes"]]


def _small_curve(name: str, curve: list[float], row: dict) -> dict:
    """A class's precision against recall, and its threshold, in a square of 100 with the origin at the upper left."""
    points = " ".join(f"{i},{100 - 100 * max(p, 0):.1f}" for i, p in enumerate(curve))
    threshold = f"{100 * row['recall']:.1f}", f"{100 - 100 * row['precision']:.1f}"
    return {"name": name, "points": points, "threshold": threshold, "AP50": row["AP50"], "group": row["group"]}


def _matrix(confusion: dict) -> dict:
    """names, and rows of (name, cells); a cell has its count, its share of the row, and whether it is right."""
    names, rows = confusion["names"], []
    for i, (name, counts) in enumerate(zip(names, confusion["counts"], strict=True)):
        total = max(1, sum(counts))
        cells = [{"count": c, "share": c / total, "right": i == j} for j, c in enumerate(counts)]
        rows.append((name, cells))
    return {"names": names, "rows": rows}


def _confused_pairs(confusion: dict) -> list[dict]:
    """The pairs of classes that are confused most often, without the background."""
    names, pairs = confusion["names"], []
    for i, counts in enumerate(confusion["counts"][:-1]):
        total = max(1, sum(counts))
        for j, count in enumerate(counts[:-1]):
            if i != j and count:
                pairs.append({"truth": names[i], "taken_for": names[j], "count": count, "share": count / total})
    return sorted(pairs, key=lambda pair: -pair["count"])[:CONFUSED_PAIRS]


def _error_table(metrics: dict) -> dict:
    """columns: "all" and the groups that have classes; rows: (kind, meaning, costs by column); widest: the largest."""
    columns = {"all": metrics["errors"], **{name: group["errors"] for name, group in _groups(metrics)}}
    rows = [
        (kind, meaning, [errors[kind] for errors in columns.values()]) for kind, meaning in {**KINDS, **SUMS}.items()
    ]
    widest = max((cost for _, _, costs in rows for cost in costs if is_known(cost)), default=0)
    return {"columns": list(columns), "rows": rows, "widest": max(widest, 1e-9)}
