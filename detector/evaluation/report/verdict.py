"""What an evaluation says, in sentences. What they say of a class comes from the counts of the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

from detector.data.class_groups import GROUPS
from detector.evaluation.deployment import not_to_deploy
from detector.evaluation.metrics.bootstrap import FEW
from detector.evaluation.metrics.confusion import ClassCounts, counts_by_class
from detector.evaluation.metrics.score_thresholds import WORKS
from detector.evaluation.report.history import still_rises
from detector.pages.render import figure, is_known
from detector.utils.text import counted, shortened

GOOD = 0.5  # F1 from which on a class is found well; below WORKS it does not work
MOST_CLASSES = 12  # with a sentence of their own, the worst first
MOST_OTHERS = 3  # parts of a sentence on the classes that a class is confused with


def verdict(metrics: dict, curves: Sequence[dict] = ()) -> list[tuple[str, str]]:
    """(tone, sentence), the tone being good, warn, bad or "".

    metrics: the content of metrics.json (`analyse`). curves: the lines of the run's metrics.jsonl.
    """
    classes = metrics["per_class"]
    counts = counts_by_class(metrics["confusion"]["names"], metrics["confusion"]["counts"])
    sentences = [
        ("", _overall(metrics)),
        *deployment_sentences(metrics),
        ("warn", still_rises(curves)),
        ("", _costs(list(counts.values()))),
        *_classes(classes, counts),
        *_doubtful_classes(classes),
    ]
    return [(tone, text) for tone, text in sentences if text]


def deployment_sentences(metrics: dict) -> list[tuple[str, str]]:
    """(tone, sentence) on which thresholds to deploy with, and which classes not to deploy; none where no threshold was
    chosen."""
    classes = {name: row for name, row in metrics["per_class"].items() if row["chosen"]}
    if not classes:
        return []
    if metrics["objects"] < FEW:
        return [("warn", f"Fewer than {FEW} objects here: too few to say which threshold to deploy with.")]
    thresholds = {name: row["threshold"] for name, row in classes.items() if row["works"]}
    failing = [name for name in classes if name not in thresholds]
    sentences = []
    if thresholds:
        low, high = min(thresholds.values()), max(thresholds.values())
        text = f"Deploy with each class's own threshold, {low:.2f} to {high:.2f}: the table of classes has them."
        if low == high:
            text = f"Deploy with a threshold of {low:.2f}."
        borrowed = [name for name in thresholds if not classes[name]["own"]]
        if borrowed:
            text += f" That of {shortened(borrowed)} was not chosen on objects of the class, for want of them."
        sentences.append(("", text))
    if failing:
        text = not_to_deploy(failing, nothing_works=not thresholds)
        sentences.append(("bad", f"{text[0].upper()}{text[1:]}."))
    return sentences


def class_sentence(name: str, counts: ClassCounts) -> str:
    """What became of the objects of a class, and what its detections are.

    For example: "arrow: 14 of 23 found, 8 not found, 1 taken for star. 20 detections: 14 right, 6 on background."
    """
    objects = [f"{counts.found} of {counts.objects} found"] if counts.objects else ["no object here"]
    if counts.not_found:
        objects.append(f"{counts.not_found} not found")
    objects += _with_others(counts.taken_for, "taken for")
    detections = [f"{counts.found} right"]
    if counts.on_background:
        detections.append(f"{counts.on_background} on background")
    detections += _with_others(counts.on_others, "on")
    text = f"{name}: {', '.join(objects)}."
    if not counts.detections:
        return f"{text} No detection."
    return f"{text} {counted(counts.detections, 'detection')}: {', '.join(detections)}."


def costs_most(counts: ClassCounts) -> str:
    """What most errors of a class are, in words, with their number; "" if it has none.

    All count alike: F1 is 2 x right / (2 x right + wrong detections + objects not found).
    """
    errors = {
        "not found": counts.not_found,
        "taken for another class": sum(counts.taken_for.values()),
        "detections on background": counts.on_background,
        "detections on other classes": sum(counts.on_others.values()),
    }
    worst = max(errors, key=lambda words: errors[words])
    return f"{worst} ({errors[worst]})" if errors[worst] else ""


def _with_others(others: dict[str, int], words: str) -> list[str]:
    """["3 on star", "1 on cross"]: all of them, or MOST_OTHERS parts, the last of which is the sum of the rest."""
    named = len(others) if len(others) <= MOST_OTHERS else MOST_OTHERS - 1
    parts = [f"{count} {words} {name}" for name, count in others.items()]
    rest = sum(list(others.values())[named:])
    return [*parts[:named], f"{rest} {words} {len(others) - named} other classes"] if rest else parts


def _overall(metrics: dict) -> str:
    ends = metrics["intervals"].get("AP")
    interval = f" (95 % sure between {ends[0]:.3f} and {ends[1]:.3f})" if ends else ""
    data = f"{counted(metrics['images'], 'image')} with {counted(metrics['objects'], 'object')}"
    text = f"AP is {figure(metrics['AP'])}{interval} on {data}."
    ap = {group: metrics["groups"][group]["AP"] for group in GROUPS}
    parts = [f"{group} {figure(value)}" for group, value in ap.items() if is_known(value)]
    return f"{text} By how common a class is: {', '.join(parts)}." if len(parts) > 1 else text


def _costs(classes: Sequence[ClassCounts]) -> str:
    """The errors of all classes at their thresholds, most first. What is taken for another class is counted once."""
    errors = {
        "objects not found": sum(c.not_found for c in classes),
        "objects taken for another class": sum(sum(c.taken_for.values()) for c in classes),
        "detections on background": sum(c.on_background for c in classes),
    }
    parts = [f"{errors[words]} {words}" for words in sorted(errors, key=lambda words: -errors[words]) if errors[words]]
    return f"What goes wrong at these thresholds, most first: {', '.join(parts)}." if parts else ""


def _classes(classes: dict[str, dict], counts: dict[str, ClassCounts]) -> list[tuple[str, str]]:
    """A sentence for each class that has objects or detections, the worst first; MOST_CLASSES at most."""
    worst_first = sorted(
        (name for name, of_class in counts.items() if of_class.objects or of_class.detections),
        key=lambda name: (not classes[name]["conclusive"], counts[name].f1),
    )
    sentences = [
        (_tone(counts[name].f1) if classes[name]["conclusive"] else "", class_sentence(name, counts[name]))
        for name in worst_first[:MOST_CLASSES]
    ]
    left = len(worst_first) - MOST_CLASSES
    return [*sentences, ("", f"{counted(left, 'more class')}: see their table.")] if left > 0 else sentences


def _tone(f1: float) -> str:
    return "good" if f1 >= GOOD else "warn" if f1 >= WORKS else "bad"


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
