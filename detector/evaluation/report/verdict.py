"""What an evaluation says, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from detector.data.class_groups import GROUPS
from detector.evaluation.metrics.bootstrap import FEW
from detector.evaluation.metrics.errors import KINDS
from detector.pages.render import figure, is_known
from detector.utils.text import shortened

FOUND, HARDLY = 0.5, 0.1  # AP50 from which on a class is found, and below which it is not
SHOWN_COST = 0.0005  # of AP50; a smaller one would be printed as 0.000


def verdict(metrics: dict) -> list[tuple[str, str]]:
    """(tone, sentence), the tone being good, warn, bad or "". metrics: the content of metrics.json (`analyse`)."""
    classes = metrics["per_class"]
    sentences = [
        ("", _overall(metrics)),
        *_classes_by_ap(classes),
        *_doubtful_classes(classes),
        ("", _thresholds(classes)),
        ("", _costs(metrics["errors"])),
    ]
    return [(tone, text) for tone, text in sentences if text]


def worst_error(row: dict) -> str:
    """The kind of error that costs a class most, in words; "" if none does. row: of `per_class`."""
    costs = {kind: row["errors"][kind] for kind in KINDS if is_known(row["errors"][kind])}
    worst = max(costs, key=lambda kind: costs[kind], default=None)
    return KINDS[worst] if worst is not None and costs[worst] > 0 else ""


def _overall(metrics: dict) -> str:
    ends = metrics["intervals"].get("AP")
    interval = f" (95 % sure between {ends[0]:.3f} and {ends[1]:.3f})" if ends else ""
    text = f"AP is {figure(metrics['AP'])}{interval} on {metrics['images']} images with {metrics['objects']} objects."
    ap = {group: metrics["groups"][group]["AP"] for group in GROUPS}
    parts = [f"{group} {figure(value)}" for group, value in ap.items() if is_known(value)]
    return f"{text} By how common a class is: {', '.join(parts)}." if len(parts) > 1 else text


def _classes_by_ap(classes: dict[str, dict]) -> list[tuple[str, str]]:
    """Which classes are found, which in part and which are not, of those with enough objects."""
    rows = {name: row for name, row in classes.items() if row["conclusive"]}
    worst_first = sorted(rows, key=lambda name: rows[name]["AP50"])
    found = [name for name in reversed(worst_first) if rows[name]["AP50"] >= FOUND]
    partly = [name for name in worst_first if HARDLY <= rows[name]["AP50"] < FOUND]
    hardly = [name for name in worst_first if rows[name]["AP50"] < HARDLY]
    sentences = []
    if found:
        sentences.append(("good", f"Found (AP50 of {FOUND:g} or more): {shortened(found)}."))
    if partly:
        worst = _with_errors(partly, rows)
        sentences.append(("warn", f"Found in part (AP50 of {HARDLY:g} to {FOUND:g}), the worst first: {worst}."))
    if hardly:
        sentences.append(("bad", f"Not found, or hardly (AP50 below {HARDLY:g}): {_with_errors(hardly, rows)}."))
    return sentences


def _doubtful_classes(classes: dict[str, dict]) -> list[tuple[str, str]]:
    few = [name for name, row in classes.items() if not row["conclusive"] and row["num_gt"]]
    none = [name for name, row in classes.items() if not row["num_gt"]]
    sentences = []
    if few:
        text = f"Nothing can be concluded about {shortened(few)}: fewer than {FEW} objects here. Label more of them."
        sentences.append(("warn", text))
    if none:
        text = f"Not one object here of {shortened(none)}: their figures are missing from all means."
        sentences.append(("warn", text))
    return sentences


def _with_errors(names: Sequence[str], rows: dict[str, dict]) -> str:
    """Each class with the kind of error that costs it most."""
    errors = {name: worst_error(rows[name]) for name in names}
    return shortened([f"{name} ({error})" if error else name for name, error in errors.items()])


def _thresholds(classes: dict[str, dict]) -> str:
    thresholds = {name: row["threshold"] for name, row in classes.items() if row["threshold"] < 1}  # 1: never detected
    if not thresholds:
        return ""
    low, high = min(thresholds.values()), max(thresholds.values())
    if low == high:
        text = f"Deploy with a threshold of {low:.2f}."
    else:
        text = f"Deploy with each class's own threshold, {low:.2f} to {high:.2f}: the table of classes has them."
    borrowed = [name for name in thresholds if not classes[name]["own"]]
    if borrowed:
        text += f" For {shortened(borrowed)} there were too few objects to choose from: "
        text += "they take the threshold that is best for all classes together."
    return text


def _costs(errors: dict[str, float]) -> str:
    costs = sorted(((errors[kind], text) for kind, text in KINDS.items() if is_known(errors[kind])), reverse=True)
    parts = [f"{text} ({cost:.3f})" for cost, text in costs if cost >= SHOWN_COST]
    return f"What costs most AP50: {'; then '.join(parts[:3])}." if parts else ""
