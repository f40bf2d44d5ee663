"""What an evaluation says, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from detector.data.class_groups import GROUPS
from detector.pages.render import figure, is_known
from detector.utils.text import shortened

FOUND, HARDLY = 0.5, 0.1  # AP50: from here on a class is found; below this it is not
KINDS = {
    "classification": "taken for another class",
    "localisation": "in the wrong place",
    "both": "wrong class and place",
    "duplicate": "found twice",
    "background": "detections where nothing is",
    "missed": "not found",
}


def verdict(metrics: dict) -> list[tuple[str, str]]:
    """(tone, sentence): good, warn, bad or plain. metrics: what eval/<split>/metrics.json holds."""
    classes = metrics["per_class"]
    sure = {name: row for name, row in classes.items() if row["conclusive"]}
    few = [name for name, row in classes.items() if not row["conclusive"] and row["num_gt"]]
    none = [name for name, row in classes.items() if not row["num_gt"]]
    by_ap = sorted(sure, key=lambda name: sure[name]["AP50"])
    found = [name for name in reversed(by_ap) if sure[name]["AP50"] >= FOUND]
    partly = [name for name in by_ap if HARDLY <= sure[name]["AP50"] < FOUND]
    hardly = [name for name in by_ap if sure[name]["AP50"] < HARDLY]
    sentences = [
        ("", _overall(metrics)),
        ("good", found and f"Found (AP50 of {FOUND:g} or more): {shortened(found)}."),
        ("warn", partly and f"Found in part (AP50 of {HARDLY:g} to {FOUND:g}), the worst first: {_why(partly, sure)}."),
        ("bad", hardly and f"Not found, or hardly (AP50 below {HARDLY:g}): {_why(hardly, sure)}."),
        (
            "warn",
            few and f"Nothing can be concluded of {shortened(few)}: fewer than 10 objects here. Label more of them.",
        ),
        ("warn", none and f"Not one object here of {shortened(none)}: their figures are missing from all means."),
        ("", _thresholds(classes)),
        ("", _costs(metrics["errors"])),
    ]
    return [(tone, text) for tone, text in sentences if text]


def worst_error(row: dict) -> str:
    """The kind of error that costs a class most, in words; nothing where none does."""
    errors = {kind: row["errors"][kind] for kind in KINDS if is_known(row["errors"][kind])}
    kind = max(errors, key=errors.get, default=None)
    return KINDS[kind] if kind is not None and errors[kind] > 0 else ""


def _why(names: Sequence[str], rows: dict[str, dict]) -> str:
    """Each class with the kind of error that costs it most."""
    texts = []
    for name in names:
        worst = worst_error(rows[name])
        texts.append(f"{name} ({worst})" if worst else name)
    return shortened(texts)


def _overall(metrics: dict) -> str:
    ends = metrics["intervals"].get("AP")
    sure = f" (95 % sure between {ends[0]:.3f} and {ends[1]:.3f})" if ends else ""
    text = f"AP is {figure(metrics['AP'])}{sure} on {metrics['images']} images with {metrics['objects']} objects."
    ap = {name: metrics["groups"][name]["AP"] for name in GROUPS}
    parts = [f"{name} {figure(value)}" for name, value in ap.items() if is_known(value)]
    return f"{text} By how common a class is: {', '.join(parts)}." if len(parts) > 1 else text


def _thresholds(classes: dict[str, dict]) -> str:
    chosen = {name: row["threshold"] for name, row in classes.items() if row["threshold"] < 1}  # 1: not to be detected
    if not chosen:
        return ""
    low, high = min(chosen.values()), max(chosen.values())
    if low == high:
        text = f"Deploy with a threshold of {low:.2f}."
    else:
        text = f"Deploy with each class's own threshold, {low:.2f} to {high:.2f}: the table of classes has them."
    few = [name for name in chosen if not classes[name]["own"]]
    why = "there were too few objects to choose from, so that theirs is the one that suits all classes together"
    return f"{text} Of {shortened(few)} {why}." if few else text


def _costs(errors: dict) -> str:
    costs = sorted(((errors[kind], text) for kind, text in KINDS.items() if is_known(errors[kind])), reverse=True)
    costs = [f"{text} ({cost:.3f})" for cost, text in costs if cost >= 0.0005]
    return f"What costs most AP50: {'; then '.join(costs[:3])}." if costs else ""
