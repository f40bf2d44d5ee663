"""What is said of each class, beside a plain count of simulated objects and detections, on 50 confusion tables."""

import json
from collections import Counter

import numpy as np
import pytest

from detector.evaluation.metrics.average_precision import hits_by_class
from detector.evaluation.metrics.confusion import confusion_matrix
from detector.evaluation.metrics.matching import match
from detector.evaluation.metrics.score_thresholds import Goal, thresholds_at
from detector.evaluation.report.verdict import verdict

CLASSES = ["ant", "bee", "cow", "dog"]
PLACES = 16  # of an image, far from one another
ALIKE, NO_DETECTION, NO_OBJECT, ALL_BACKGROUND, ALL_FOUND = "alike", "no detection", "no object", "background", "found"


def simulate(seed: int):
    """Objects, detections and thresholds, and the outcomes that they are made to have.

    objects: [(image, class, x, y, w, h)]; found: [(image, class, score, x, y, w, h)]; thresholds: class → score;
    outcomes: one (class of the object or None, class of the detection or None) for each object and each detection that
    finds none. Some detections are below the threshold of their class, and so are nothing.
    """
    rng = np.random.default_rng(seed)
    kind = [ALIKE, NO_DETECTION, NO_OBJECT, ALL_BACKGROUND, ALL_FOUND][seed] if seed < 5 else ""
    thresholds = {name: float(rng.choice([0.25, 0.5, 0.75])) for name in CLASSES}
    rates = rng.dirichlet([1, 1, 1, 1, 1]) if kind != ALIKE else [0.2] * 5
    objects, found, outcomes = [], [], []

    def detect(image: int, name: str, box: tuple, above: bool) -> None:
        threshold = thresholds[name]
        score = rng.choice([threshold, 1.0]) if above else threshold - 0.125  # exactly representable as float32
        found.append((image, name, float(score), *box))

    for n in range(int(rng.integers(40, 120))):
        image, x, y = n // PLACES, 100 * (n % 4), 100 * (n // 4 % 4)
        box, name, other = (x, y, 40, 40), *rng.choice(CLASSES, 2, replace=False)
        what = rng.choice(["found", "taken", "missed", "below", "nothing"], p=rates)
        what = {NO_DETECTION: "missed", NO_OBJECT: "nothing", ALL_BACKGROUND: "off", ALL_FOUND: "found"}.get(kind, what)
        if what != "nothing":
            objects.append((image, name, *box))
        if what == "found":
            detect(image, name, box, above=True)
            outcomes.append((name, name))
            if rng.random() < 0.3 and kind != ALL_FOUND:  # a second box finds no object
                found.append((image, name, thresholds[name], x, y, 40, 36))
                outcomes.append((None, name))
        elif what == "taken":
            detect(image, other, box, above=True)
            outcomes.append((name, other))
        elif what in ("missed", "below"):
            outcomes.append((name, None))
            if what == "below":
                detect(image, name, box, above=False)
        else:  # on background: where nothing is, or beside the object
            outcomes.append((None, other))
            detect(image, other, (x + 30, y, 40, 40), above=True)
            if what == "off":
                outcomes.append((name, None))
    return objects, found, thresholds, outcomes


def plain_sentence(name: str, outcomes: list[tuple]) -> str:
    """The sentence, by counting outcomes one by one."""
    of_objects = Counter(taken for truth, taken in outcomes if truth == name)
    of_detections = Counter(truth for truth, taken in outcomes if taken == name)

    def confused(counts: Counter, words: str) -> list[str]:
        others = sorted((other for other in counts if other not in (name, None)), key=lambda o: (-counts[o], o))
        return [f"{counts[other]} {words} {other}" for other in others]

    right, total = of_objects[name], sum(of_objects.values())
    first = [f"{right} of {total} found"] if total else ["no object here"]
    first += [f"{of_objects[None]} not found"] if of_objects[None] else []
    second = [f"{right} right", *([f"{of_detections[None]} on background"] if of_detections[None] else [])]
    detections = sum(of_detections.values())
    ending = f"{detections} detections: {', '.join(second + confused(of_detections, 'on'))}."
    ending = "No detection." if not detections else ending.replace("1 detections", "1 detection", detections == 1)
    return f"{name}: {', '.join(first + confused(of_objects, 'taken for'))}. {ending}"


@pytest.mark.parametrize("seed", range(50))
def test_every_class_is_described_as_a_plain_count_says(scene, seed):
    objects, found, scores, outcomes = simulate(seed)
    data, detections = scene(CLASSES, objects, found or [(0, "ant", 0.0, 0, 0, 1, 1)])  # below every threshold
    matching = match(detections, data)
    given = [scores[name] for name in CLASSES]
    matrix = confusion_matrix(matching, np.array(given))
    thresholds = thresholds_at(hits_by_class(matching), Goal(), given, [True] * 4, [True] * 4)
    counts = data.class_counts().tolist()
    rows = {
        name: {"threshold": t.score, "own": True, "chosen": True, "works": t.works, "num_gt": n, "conclusive": n >= 10}
        for name, t, n in zip(CLASSES, thresholds, counts, strict=True)
    }
    metrics = {
        "AP": 0.5, "intervals": {}, "groups": {group: {"AP": -1.0} for group in ("head", "medium", "tail")},
        "images": len(data), "objects": sum(counts), "per_class": rows,
        "confusion": {"names": [*CLASSES, "background"], "counts": json.loads(json.dumps(matrix.tolist()))},
    }  # fmt: skip
    texts = [text for _, text in verdict(metrics)]
    for name, threshold in zip(CLASSES, thresholds, strict=True):
        mentioned = any(name in outcome for outcome in outcomes)
        assert [text for text in texts if text.startswith(f"{name}: ")] == [plain_sentence(name, outcomes)] * mentioned

        right = sum(outcome == (name, name) for outcome in outcomes)  # and the table's figures are of these counts
        assert threshold.precision == right / max(1, sum(taken == name for _, taken in outcomes))
        assert threshold.recall == right / max(1, sum(truth == name for truth, _ in outcomes))

    errors = {
        "objects not found": sum(taken is None for _, taken in outcomes),
        "objects taken for another class": sum(None not in o and o[0] != o[1] for o in outcomes),
        "detections on background": sum(truth is None for truth, _ in outcomes),
    }
    (line,) = [text for text in texts if text.startswith("What goes wrong")] or [""]
    for words, count in errors.items():
        assert f"{count} {words}" in line if count else words not in line
