"""TIDE's errors on cases made for one kind each, with the AP50 that each repair gives by hand."""

import numpy as np
import pytest

from detector.evaluation.metrics.confusion import confusion_matrix
from detector.evaluation.metrics.errors import DETECTION_KINDS, KINDS, SUMS, error_costs, find_errors
from detector.evaluation.metrics.matching import match

A = (0, "a", 0, 0, 100, 100)
B = (0, "b", 300, 300, 100, 100)
RIGHT_B = (0, "b", 0.9, 300, 300, 100, 100)
ON_A, HALF_OF_A, AWAY = (0, 0, 100, 100), (0, 0, 100, 40), (600, 600, 50, 50)  # IoU with A: 1, 0.4, 0

CASES = {  # kind: what is detected beside B, and what repairing each kind gains for (a, b)
    "localisation": ([(0, "a", 0.8, *HALF_OF_A)], {"localisation": (1, 0), "false_negative": (1, 0)}),
    "classification": (
        [(0, "b", 0.95, *ON_A)],
        {"classification": (1, 0.5), "false_positive": (0, 0.5), "false_negative": (1, 0)},
    ),
    "duplicate": (
        [(0, "a", 0.8, *ON_A), (1, "a", 0.5, *ON_A), (0, "a", 0.7, 0, 0, 100, 90)],
        {"duplicate": (50 / 101 / 3, 0), "false_positive": (50 / 101 / 3, 0)},
    ),
    "background": (
        [(0, "a", 0.9, *AWAY), (0, "a", 0.8, *ON_A)],
        {"background": (0.5, 0), "false_positive": (0.5, 0)},
    ),
    "both": (
        [(0, "b", 0.95, *HALF_OF_A), (0, "a", 0.8, *ON_A)],
        {"both": (0, 0.5), "false_positive": (0, 0.5)},
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_one_error_of_each_kind(scene, kind):
    detected, gains = CASES[kind]
    objects = [A, B, (1, "a", 0, 0, 100, 100)] if kind == "duplicate" else [A, B]
    data, found = scene(["a", "b"], objects, [RIGHT_B, *detected])
    matching = match(found, data)
    errors = find_errors(matching)
    assert [DETECTION_KINDS[k] for k in errors.kind if k >= 0] == [kind]
    assert not errors.missed.any()
    costs = error_costs(matching, errors)
    for fix in [*KINDS, *SUMS]:
        assert costs[fix].tolist() == pytest.approx(gains.get(fix, (0, 0)), abs=1e-9), fix


def test_an_object_that_nothing_comes_near_is_missed(scene):
    data, found = scene(["a", "b"], [A, (0, "a", 500, 500, 50, 50), B], [RIGHT_B, (0, "a", 0.9, *ON_A)])
    matching = match(found, data)
    errors = find_errors(matching)
    assert errors.missed.tolist() == [False, True, False] and (errors.kind == -1).all()
    costs = error_costs(matching, errors)
    assert costs["missed"].tolist() == pytest.approx([1 - 51 / 101, 0])
    assert costs["false_negative"].tolist() == pytest.approx([1 - 51 / 101, 0])
    assert all((costs[kind] == 0).all() for kind in DETECTION_KINDS)


def test_a_class_of_which_all_is_missed_rises_to_1(scene):
    data, found = scene(["a", "b", "c"], [A, B], [RIGHT_B])
    matching = match(found, data)
    costs = error_costs(matching, find_errors(matching))
    np.testing.assert_array_equal(costs["missed"], [1, 0, np.nan])


def test_of_several_near_one_object_only_the_surest_is_put_right(scene):
    data, found = scene(["a"], [A], [(0, "a", 0.9, *HALF_OF_A), (0, "a", 0.6, 0, 0, 100, 30)])
    matching = match(found, data)
    errors = find_errors(matching)
    assert errors.target.tolist() == [0, 0] and not errors.missed.any()
    assert error_costs(matching, errors)["localisation"].tolist() == [1]


def test_a_wrong_place_comes_before_a_wrong_class(scene):
    # it lies on b, and overlaps a, its own class, by 0.4
    data, found = scene(["a", "b"], [A, (0, "b", 0, 0, 100, 40)], [(0, "a", 0.9, *HALF_OF_A)])
    assert [DETECTION_KINDS[k] for k in find_errors(match(found, data)).kind] == ["localisation"]


def test_what_is_found_is_not_put_right_again(scene):
    data, found = scene(["a"], [A], [(0, "a", 0.9, *ON_A), (0, "a", 0.95, *HALF_OF_A)])
    matching = match(found, data)
    costs = error_costs(matching, find_errors(matching))
    assert costs["localisation"].tolist() == [0.5]  # the wrong one is gone: precision 1/2 becomes 1


def test_crowds_are_neither_missed_nor_errors(scene):
    data, found = scene(["a"], [(*A, True), (0, "a", 500, 0, 50, 50)], [(0, "a", 0.9, 10, 10, 20, 20)])
    matching = match(found, data)
    errors = find_errors(matching)
    assert errors.kind.tolist() == [-1] and errors.missed.tolist() == [False, True]


def test_detections_where_there_is_no_object_at_all(scene):
    matching = match(*reversed(scene(["a"], [], [(0, "a", 0.9, *ON_A), (0, "a", 0.2, *AWAY)])))
    errors = find_errors(matching)
    assert [DETECTION_KINDS[k] for k in errors.kind] == ["background", "background"]
    assert all(np.isnan(cost).all() for cost in error_costs(matching, errors).values())
    assert confusion_matrix(matching, np.array([0.5])).tolist() == [[0, 0], [1, 0]]


def test_confusion_by_hand(scene):
    data, found = scene(
        ["a", "b"],
        [A, B, (0, "a", 600, 0, 50, 50), (1, "b", 0, 0, 50, 50, True)],
        [(0, "b", 0.8, *ON_A), RIGHT_B, (0, "b", 0.2, 600, 0, 50, 50), (0, "a", 0.9, *AWAY), (1, "b", 0.9, 5, 5, 9, 9)],
    )
    counts = confusion_matrix(match(found, data), np.array([0.5, 0.5]))
    assert counts.tolist() == [
        [0, 1, 1],  # one a taken for b, one missed as its detection is below the threshold
        [0, 1, 0],
        [1, 0, 0],  # an a where nothing is; the one in the crowd does not count
    ]
