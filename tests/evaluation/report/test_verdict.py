"""What is said of an evaluation, from figures made up."""

import copy

import pytest

from detector.evaluation.metrics.confusion import counts_by_class
from detector.evaluation.report.verdict import class_sentence, costs_most, verdict
from detector.utils.text import shortened

CAT = {"AP": 0.6, "AP50": 0.8, "num_gt": 50, "conclusive": True, "threshold": 0.4, "own": True, "works": True,
       "chosen": True}  # fmt: skip
FAILS = {"works": False}


def figures(counts: list[list[int]] | None = None, **classes) -> dict:
    """Metrics of classes that differ from CAT as given. counts: the confusion matrix; None: 50 of each class, found."""
    groups = {name: {"AP": ap} for name, ap in (("head", 0.6), ("medium", -1.0), ("tail", 0.2))}
    per_class = {name: copy.deepcopy(CAT) | changed for name, changed in classes.items()}
    size = len(classes) + 1
    found = [[50 * (i == j < size - 1) for j in range(size)] for i in range(size)]
    return {"AP": 0.4, "intervals": {"AP": [0.35, 0.45]}, "images": 20, "objects": 150, "groups": groups,
            "per_class": per_class, "confusion": {"names": [*classes, "background"], "counts": counts or found},
            }  # fmt: skip


def said(metrics: dict, tone: str) -> list[str]:
    return [text for own, text in verdict(metrics) if own == tone]


def test_overall_first():
    assert verdict(figures(cat={}))[0] == (
        "",
        "AP is 0.400 (95 % sure between 0.350 and 0.450) on 20 images with 150 objects. "
        "By how common a class is: head 0.600, tail 0.200.",
    )


def test_classes_by_what_became_of_their_objects_the_worst_first():
    counts = [  # cat, dog, cow, background
        [45, 0, 0, 5],
        [3, 14, 1, 5],
        [0, 0, 2, 8],
        [0, 20, 90, 0],
    ]
    metrics = figures(counts, cat={}, dog={}, cow=FAILS)
    assert said(metrics, "bad")[1:] == ["cow: 2 of 10 found, 8 not found. 93 detections: 2 right, 90 on background, "
                                        "1 on dog."]  # fmt: skip
    assert said(metrics, "warn") == ["dog: 14 of 23 found, 5 not found, 3 taken for cat, 1 taken for cow. "
                                     "34 detections: 14 right, 20 on background."]  # fmt: skip
    assert said(metrics, "good") == ["cat: 45 of 50 found, 5 not found. 48 detections: 45 right, 3 on dog."]
    assert (
        "What goes wrong at these thresholds, most first: 110 detections on background, 18 objects not found, "
        "4 objects taken for another class."
    ) in said(metrics, "")
    by_class = counts_by_class(["cat", "dog", "cow", "background"], counts)
    assert {name: costs_most(of_class) for name, of_class in by_class.items()} == {
        "cat": "not found (5)",
        "dog": "detections on background (20)",
        "cow": "detections on background (90)",
    }


def test_a_class_taken_for_many_others():
    others = [f"c{k}" for k in range(6)]
    matrix = [[0] * 8 for _ in range(8)]
    matrix[6] = [1, 5, 2, 4, 0, 1, 9, 0]  # row 6 is the class
    counts = counts_by_class([*others, "cat", "background"], matrix)["cat"]
    assert class_sentence("cat", counts) == (
        "cat: 9 of 22 found, 5 taken for c1, 4 taken for c3, 4 taken for 3 other classes. 9 detections: 9 right."
    )


def test_a_class_may_be_called_background():
    counts = counts_by_class(["background", "background"], [[3, 2], [1, 0]])["background"]
    assert class_sentence("background", counts) == (
        "background: 3 of 5 found, 2 not found. 4 detections: 3 right, 1 on background."
    )


def test_only_the_worst_of_many_classes_have_a_sentence():
    texts = said(figures(**{f"c{k}": {} for k in range(15)}), "good")
    assert len(texts) == 12
    assert "3 more classes: see their table." in said(figures(**{f"c{k}": {} for k in range(15)}), "")


def test_nothing_is_concluded_from_few_objects_or_none():
    metrics = figures(
        [[50, 0, 0, 0], [0, 0, 0, 3], [0, 0, 0, 0], [0, 0, 4, 0]],
        cat={},
        yak={"num_gt": 3, "conclusive": False},
        emu={"num_gt": 0, "conclusive": False, "AP50": -1.0, "AP": -1.0},
    )
    assert "yak: 0 of 3 found, 3 not found. No detection." in said(metrics, "")
    assert "emu: no object here. 4 detections: 0 right, 4 on background." in said(metrics, "")
    few, none = said(metrics, "warn")
    assert few.startswith("Nothing can be concluded about yak: fewer than 10 objects")
    assert none.startswith("Not one object here of emu")


BELOW = "F1 at the threshold is below 0.2: most of what is reported is wrong, or most objects are missed."


@pytest.mark.parametrize(
    ("classes", "tone", "sentence"),
    [
        ({"cat": {}, "dog": {}}, "", "Deploy with a threshold of 0.40."),
        ({"cat": {}, "dog": {"threshold": 0.25}}, "", "Deploy with each class's own threshold, 0.25 to 0.40: "
         "the table of classes has them."),
        ({"cat": {}, "dog": {"own": False}}, "", "Deploy with a threshold of 0.40. That of dog was not chosen on "
         "objects of the class, for want of them."),
        ({"cat": {}, "dog": {"threshold": 0.9, **FAILS}}, "", "Deploy with a threshold of 0.40."),
        ({"cat": {}, "dog": FAILS}, "bad", f"These classes do not work: dog; do not deploy them. {BELOW}"),
        ({"cat": FAILS, "dog": FAILS}, "bad", f"No class works; do not deploy the detector. {BELOW}"),
    ],
)  # fmt: skip
def test_which_threshold_to_deploy(classes, tone, sentence):
    texts = said(figures(**classes), tone)
    assert sentence in texts


def test_a_threshold_that_nobody_chose_is_not_recommended():
    unknown = {"chosen": False, "own": False, "threshold": 1.0}
    assert "Deploy with a threshold of 0.40." in said(figures(cat={}, dog=unknown), "")
    assert not any("eploy" in text for _, text in verdict(figures(cat=unknown, dog=unknown | FAILS)))


def test_nothing_to_deploy_is_offered_no_threshold():
    assert not any("Deploy with" in text for _, text in verdict(figures(cat=FAILS)))
    few = figures(cat={}) | {"objects": 9}
    assert not any("Deploy with" in text for _, text in verdict(few))
    assert "Fewer than 10 objects here: too few to say which threshold to deploy with." in said(few, "warn")


def test_a_training_that_was_too_short():
    rising = [{"kind": "eval", "epoch": epoch, "AP": epoch / 10} for epoch in (1, 2, 3, 4)]
    assert any(text.startswith("AP still rises") for _, text in verdict(figures(cat={}), rising))


def test_no_error_costs_anything():
    assert costs_most(counts_by_class(["cat", "background"], [[5, 0], [0, 0]])["cat"]) == ""


def test_many_names_are_cut_short():
    assert shortened([f"c{i}" for i in range(13)]) == "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 3 more"
