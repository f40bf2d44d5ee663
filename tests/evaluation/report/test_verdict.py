"""What is said of an evaluation, from figures made up."""

import copy

import pytest

from detector.evaluation.report.verdict import verdict, worst_error
from detector.utils.text import shortened

NO_ERRORS = dict.fromkeys(("classification", "localisation", "both", "duplicate", "background", "missed"), 0.0)
CAT = {"AP": 0.6, "AP50": 0.8, "num_gt": 50, "conclusive": True, "threshold": 0.4, "own": True, "errors": NO_ERRORS}


def figures(**classes) -> dict:
    """Metrics of classes that differ from CAT as given."""
    groups = {name: {"AP": ap} for name, ap in (("head", 0.6), ("medium", -1.0), ("tail", 0.2))}
    per_class = {name: copy.deepcopy(CAT) | changed for name, changed in classes.items()}
    return {"AP": 0.4, "intervals": {"AP": [0.35, 0.45]}, "images": 20, "objects": 150, "groups": groups,
            "per_class": per_class, "errors": NO_ERRORS}  # fmt: skip


def said(metrics: dict, tone: str) -> list[str]:
    return [text for own, text in verdict(metrics) if own == tone]


def test_overall_first():
    assert verdict(figures(cat={}))[0] == (
        "",
        "AP is 0.400 (95 % sure between 0.350 and 0.450) on 20 images with 150 objects. "
        "By how common a class is: head 0.600, tail 0.200.",
    )


def test_classes_by_how_well_they_are_found_with_what_costs_them_most():
    missed, confused = NO_ERRORS | {"missed": 0.2}, NO_ERRORS | {"classification": 0.3, "missed": 0.1}
    metrics = figures(
        cat={}, dog={"AP50": 0.9}, cow={"AP50": 0.3, "errors": confused}, fox={"AP50": 0.2},
        owl={"AP50": 0.05, "errors": missed},
    )  # fmt: skip
    assert said(metrics, "good") == ["Found (AP50 of 0.5 or more): dog, cat."]
    assert said(metrics, "warn") == [
        "Found in part (AP50 of 0.1 to 0.5), the worst first: fox, cow (taken for another class)."
    ]
    assert said(metrics, "bad") == ["Not found, or hardly (AP50 below 0.1): owl (not found)."]


def test_nothing_is_concluded_from_few_objects_or_none():
    metrics = figures(
        cat={}, yak={"num_gt": 3, "conclusive": False}, emu={"num_gt": 0, "conclusive": False, "AP50": -1.0, "AP": -1.0}
    )
    assert said(metrics, "good") == ["Found (AP50 of 0.5 or more): cat."]
    few, none = said(metrics, "warn")
    assert few.startswith("Nothing can be concluded about yak: fewer than 10 objects")
    assert none.startswith("Not one object here of emu")


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ({"cat": {}, "dog": {}}, "Deploy with a threshold of 0.40."),
        ({"cat": {}, "dog": {"threshold": 0.25}}, "Deploy with each class's own threshold, 0.25 to 0.40: "
         "the table of classes has them."),
        ({"cat": {}, "dog": {"own": False}}, "Deploy with a threshold of 0.40. For dog there were too few objects to "
         "choose from: they take the threshold that is best for all classes together."),
        ({"cat": {}, "dog": {"threshold": 1.0}}, "Deploy with a threshold of 0.40."),
    ],
)  # fmt: skip
def test_which_threshold_to_deploy(classes, sentence):
    assert sentence in said(figures(**classes), "")


def test_what_costs_most_by_cost():
    metrics = figures(cat={})
    metrics["errors"] = NO_ERRORS | {"missed": 0.1, "background": 0.2, "both": 0.0001}
    assert said(metrics, "")[-1] == "What costs most AP50: detections where nothing is (0.200); then not found (0.100)."


def test_worst_error_of_none():
    assert worst_error({"errors": NO_ERRORS}) == ""


def test_many_names_are_cut_short():
    assert shortened([f"c{i}" for i in range(13)]) == "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 3 more"
