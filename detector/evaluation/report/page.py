"""The page of an evaluation: what was found and what was not, in figures, plots and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from detector.data.class_groups import GROUPS
from detector.data.coco import CocoData
from detector.evaluation.report.gallery import DETECTION, OBJECT, OTHER, galleries
from detector.evaluation.report.plots import precision_recall, reliability, training_plots
from detector.evaluation.report.tables import ROWS
from detector.evaluation.report.verdict import verdict, worst_error
from detector.pages.render import is_known, render, write

if TYPE_CHECKING:
    from detector.evaluation.metrics.matching import Matching

ERRORS = {  # after TIDE (Bolya et al., 2020)
    "classification": "right place, wrong class",
    "localisation": "right class, wrong place",
    "both": "wrong class and wrong place",
    "duplicate": "a second box on an object already found",
    "background": "nothing is there",
    "missed": "an object that no detection is near",
}
MATRIX = 30  # classes: with more, the most confused pairs instead of a matrix
PAIRS = 40  # of them


def write_report(
    path: Path, *, metrics: dict, matching: Matching, data: CocoData, facts: dict, curves: list[dict] | None
) -> None:
    """Write the page, one file that needs no other.

    metrics: what eval/<split>/metrics.json holds. matching: of the same detections, at IoU 0.5. facts: {title, rows:
    [(label, text)]}, what was trained on what. curves: the lines of a run's metrics.jsonl.
    """
    rare_first = rarest_first(metrics["per_class"])
    calibration = metrics["calibration"]
    measured = [name for name in rare_first if is_known(metrics["per_class"][name]["AP50"])]
    pr_curves = {name: metrics["pr_curves"][name] for name in measured}
    training = training_plots(curves or [], rare_first)
    html = render(
        "report.html",
        title=facts["title"],
        facts=facts["rows"],
        sections=_sections(bool(training)),
        metrics=metrics,
        groups=_groups(metrics),
        verdict=verdict(metrics),
        training=training,
        coco_rows=ROWS,
        classes=_class_rows(metrics["per_class"], rare_first),
        pr_plot=precision_recall(pr_curves, rare_first) if pr_curves else None,
        pr_small=[_small_curve(name, pr_curves[name], metrics["per_class"][name]) for name in measured],
        confusion=_matrix(metrics["confusion"]) if len(metrics["per_class"]) <= MATRIX else None,
        confused=_confused(metrics["confusion"]),
        errors=_error_rows(metrics),
        calibration=calibration,
        reliability=reliability(calibration) if calibration["bins"] else None,
        gallery=galleries(matching, data, metrics["per_class"], rare_first),
        colours={"object": OBJECT, "detection": DETECTION, "other": OTHER},
    )
    write(path, html)


def rarest_first(per_class: dict[str, dict]) -> list[str]:
    """Class names by how many objects there were to learn from, or, where that is not known, are here."""
    return sorted(per_class, key=lambda name: (_count(per_class[name]), per_class[name]["num_gt"]))


def _count(row: dict) -> int:
    return row["num_gt"] if row["num_train"] is None else row["num_train"]


def _sections(training: bool) -> list[tuple[str, str]]:
    """(id, name) of the sections there are, for the links at the top."""
    return [
        ("verdict", "Verdict"),
        ("facts", "What was trained"),
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
    """Those that have classes, the commonest first."""
    return [(name, metrics["groups"][name]) for name in GROUPS if metrics["groups"][name]["classes"]]


def _class_rows(per_class: dict[str, dict], rare_first: Iterable[str]) -> list[dict]:
    """A row a class, the commonest first, with the kind of error that costs it most."""
    return [
        {"name": name, "worst": worst_error(per_class[name]), **per_class[name]} for name in reversed(list(rare_first))
    ]


def _small_curve(name: str, curve: list[float], row: dict) -> dict:
    """Points of a curve in a square of 100 with the origin at the upper left, and where its threshold puts it."""
    points = " ".join(f"{i},{100 - 100 * max(p, 0):.1f}" for i, p in enumerate(curve))
    at = f"{100 * row['recall']:.1f}", f"{100 - 100 * row['precision']:.1f}"
    return {"name": name, "points": points, "at": at, "AP50": row["AP50"], "group": row["group"]}


def _matrix(confusion: dict) -> dict:
    """names, and rows of (name, cells), each cell with its count, its share of the row, and whether it is right."""
    names, rows = confusion["names"], []
    for i, (name, counts) in enumerate(zip(names, confusion["counts"], strict=True)):
        total = max(1, sum(counts))
        cells = [{"count": c, "share": c / total, "right": i == j} for j, c in enumerate(counts)]
        rows.append((name, cells))
    return {"names": names, "rows": rows}


def _confused(confusion: dict) -> list[dict]:
    """Pairs of classes most often taken for one another, background left out."""
    names, pairs = confusion["names"], []
    for i, counts in enumerate(confusion["counts"][:-1]):
        total = max(1, sum(counts))
        for j, count in enumerate(counts[:-1]):
            if i != j and count:
                pairs.append({"truth": names[i], "taken_for": names[j], "count": count, "share": count / total})
    return sorted(pairs, key=lambda pair: -pair["count"])[:PAIRS]


def _error_rows(metrics: dict) -> dict:
    """columns: "all" and the groups that have errors; rows: (name, meaning, figures by column); widest: the largest."""
    columns = {"all": metrics["errors"]}
    columns |= {name: group["errors"] for name, group in _groups(metrics)}
    rows = [(kind, meaning, [errors[kind] for errors in columns.values()]) for kind, meaning in ERRORS.items()]
    rows += [
        ("false_positive", "all detections that are no object's", [e["false_positive"] for e in columns.values()]),
        ("false_negative", "all objects that were not found", [e["false_negative"] for e in columns.values()]),
    ]
    widest = max((f for _, _, figures in rows for f in figures if is_known(f)), default=0)
    return {"columns": list(columns), "rows": rows, "widest": max(widest, 1e-9)}
