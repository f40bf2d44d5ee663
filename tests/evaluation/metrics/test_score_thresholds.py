"""Thresholds by hand, the goals they are for, and what a checkpoint keeps of them."""

from dataclasses import replace

import numpy as np
import pytest

from detector.evaluation.deployment import Deployment
from detector.evaluation.metrics.average_precision import hits_by_class
from detector.evaluation.metrics.matching import match
from detector.evaluation.metrics.score_thresholds import Goal, choose_thresholds, thresholds_at

HERE, AWAY = (0, 0, 10, 10), (50, 50, 10, 10)


def images_of(label: str, right: list[float], wrong: list[float], missed: int = 0):
    """An image an object: found with the scores `right`, or missed; and false detections with the scores `wrong`."""
    objects = [(i, label, *HERE) for i in range(len(right) + missed)]
    found = [(i, label, score, *HERE) for i, score in enumerate(right)] + [(0, label, s, *AWAY) for s in wrong]
    return objects, found


@pytest.fixture
def ten(scene):
    """Ten objects: nine found, from 0.9 down to 0.1, and wrong detections in between."""
    wrong = [0.55, 0.35, 0.34, 0.33, 0.25, *[0.15] * 6]
    objects, found = images_of("a", [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], wrong, missed=1)
    return match(*reversed(scene(["a"], objects, found)))


@pytest.mark.parametrize(
    ("goal", "score", "precision", "recall", "reached"),
    [
        (Goal(), 0.375, 6 / 7, 0.6, True),  # F1 0.706; of seven 0.667, of four 0.571
        (Goal(beta=3), 0.05, 9 / 20, 0.9, True),
        (Goal("precision", target=1), 0.575, 1, 0.4, True),
        (Goal("precision", target=0.8), 0.375, 6 / 7, 0.6, True),
        (Goal("recall", target=0.7), 0.275, 7 / 11, 0.7, True),
        (Goal("recall", target=0.95), 0.05, 9 / 20, 0.9, False),
    ],
)
def test_each_goal(ten, goal, score, precision, recall, reached):
    (chosen,) = choose_thresholds(hits_by_class(ten), goal)
    assert chosen.score == pytest.approx(score, abs=1e-6)
    assert (chosen.precision, chosen.recall) == pytest.approx((precision, recall))
    assert (chosen.own, chosen.reached) == (True, reached)


def test_a_class_of_few_objects_takes_the_score_of_all(scene):
    objects, found = images_of("a", [0.9] * 12, [0.3] * 5)
    data, detections = scene(["a", "rare"], [*objects, (0, "rare", *AWAY)], [*found, (0, "rare", 0.2, *AWAY)])
    hits = hits_by_class(match(detections, data))
    common, rare = choose_thresholds(hits, Goal())
    assert common.own and not rare.own and rare.score == common.score == pytest.approx(0.6)
    assert (rare.precision, rare.recall, rare.f_score) == (0, 0, 0)
    given = thresholds_at(hits, Goal(), [0.95, 0.1], own=[True, False], reached=[False, True])
    assert [(t.recall, t.own, t.reached) for t in given] == [(0, True, False), (1, False, True)]


def test_what_all_classes_cannot_reach_a_borrower_does_not_either(scene):
    data, detections = scene(["a", "rare"], *images_of("a", [0.5] * 10, [0.6] * 10))
    _, rare = choose_thresholds(hits_by_class(match(detections, data)), Goal("precision", target=0.9))
    assert not rare.own and not rare.reached


def test_too_few_objects_of_all_classes_together(scene):
    data, detections = scene(["a"], *images_of("a", [0.01] * 3, []))
    (chosen,) = choose_thresholds(hits_by_class(match(detections, data)), Goal())
    assert (chosen.score, chosen.own, chosen.reached) == (0.3, False, False)
    assert chosen.works  # nothing says that it does not


def test_scores_that_are_equal_come_in_together(scene):
    data, detections = scene(["a"], *images_of("a", [0.5] * 10, [0.5] * 10))
    (chosen,) = choose_thresholds(hits_by_class(match(detections, data)), Goal("precision", target=0.9))
    assert not chosen.reached and chosen.precision == 0.5


@pytest.mark.parametrize("found", [[], [(0, "a", 0.9, *AWAY)]])
def test_nothing_right_found(scene, found):
    data, detections = scene(["a"], [(i, "a", *HERE) for i in range(10)], found)
    (chosen,) = choose_thresholds(hits_by_class(match(detections, data)), Goal())
    assert (chosen.score, chosen.recall, chosen.reached) == (0.3, 0, False)


@pytest.mark.parametrize(
    ("right", "wrong", "missed", "works"),
    [
        (2, 8, 0, False),  # two of ten: F1 is 0.2, but a class of two objects is judged with all others
        (10, 80, 0, True),  # F1 0.2: precision 1/9
        (10, 81, 0, False),
        (1, 0, 8, False),  # F1 0.2 of nine objects, too few to be judged alone
        (1, 0, 9, False),  # the one surest object of ten: F1 2/11
        (2, 0, 9, True),
        (0, 5, 20, False),
    ],
)
def test_what_works(scene, right, wrong, missed, works):
    objects, found = images_of("a", [0.9] * right, [0.8] * wrong, missed)
    data, detections = scene(["a", "b"], [*objects, *((0, "b", 10 * i, 500, 9, 9) for i in range(30))], found)
    threshold, other = thresholds_at(hits_by_class(match(detections, data)), Goal(), [0.5, 0.5], [True] * 2, [True] * 2)
    assert (threshold.works, other.works) == (works, False)


def test_a_class_of_few_objects_works_where_all_together_do(scene):
    objects, found = images_of("a", [0.9] * 12, [])
    data, detections = scene(["a", "rare"], [*objects, (0, "rare", *AWAY)], found)
    hits = hits_by_class(match(detections, data))
    assert [t.works for t in choose_thresholds(hits, Goal())] == [True, True]
    assert [t.works for t in thresholds_at(hits, Goal(), [0.95, 0.95], [True, False], [True] * 2)] == [False, False]


def test_what_does_not_work_is_not_to_be_deployed(scene):
    objects, found = images_of("a", [0.9] * 12, [])
    more = [(i, "b", *AWAY) for i in range(12)]
    matching = match(*reversed(scene(["a", "b"], [*objects, *more], [*found, (0, "b", 0.4, *AWAY)])))
    deployment = Deployment.of(matching, choose_thresholds(hits_by_class(matching), Goal()), Goal())
    assert deployment.failing == ["b"]
    (line,) = deployment.lines()
    assert line.startswith("warning: on val, these classes do not work: b; do not deploy them. F1 at the threshold is")
    assert Deployment.from_state(deployment.state(), 2).lines() == [line]
    old = {key: value for key, value in deployment.state().items() if key != "failing"}
    assert Deployment.from_state(old, 2).failing == []
    alone = match(*reversed(scene(["a"], images_of("a", [0.9], [], missed=20)[0], [])))
    nothing = Deployment.of(alone, choose_thresholds(hits_by_class(alone), Goal()), Goal())
    (line,) = nothing.lines()
    assert "no class works; do not deploy the detector" in line


def test_a_deployment_survives_its_checkpoint(ten):
    goal = Goal("recall", target=0.95)
    deployment = Deployment.of(ten, choose_thresholds(hits_by_class(ten), goal), goal)
    again = Deployment.from_state(deployment.state(), 1)
    assert again.goal == goal and again.thresholds.tolist() == deployment.thresholds.tolist()
    scores, labels = np.array([0.05, 0.5, 0.99], np.float32), np.zeros(3, int)
    assert again.calibration(scores, labels).tolist() == deployment.calibration(scores, labels).tolist()
    (line,) = deployment.lines()
    assert line.startswith("thresholds: no threshold gives a recall of 0.95 for a on val")


def test_calibrated_thresholds_let_the_same_detections_through(ten):
    """Also where the calibration is flat: here it is so from 0.15 down, and from 0.6 up."""
    for threshold in (0.05, 0.12, 0.375, 0.65, 0.85):
        deployment = replace(Deployment.of(ten, choose_thresholds(hits_by_class(ten), Goal()), Goal()))
        deployment = replace(deployment, thresholds=np.array([threshold]))
        detections, calibrated = deployment.calibrated(ten.detections)
        before, after = (found.scores >= limits for found, limits in (
            (ten.detections, deployment.thresholds), (detections, calibrated.thresholds)))  # fmt: skip
        assert after.tolist() == before.tolist() and before.sum() > 0
        order = np.argsort(-ten.detections.scores, kind="stable")
        assert (np.diff(detections.scores[order]) <= 0).all()
        expected = deployment.calibration(ten.detections.scores, ten.detections.labels)
        np.testing.assert_allclose(detections.scores, expected, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"thresholds": [0.5, 0.5]},
        {"thresholds": [float("nan")]},
        {"borrowed": [1]},
        {"goal": {"figure": "f"}},
        {"calibration": [{"scores": [0.0, 1.0], "precision": [1.0]}]},
        {"calibration": [{"scores": [], "precision": []}]},
        {"calibration": []},
    ],
)
def test_a_deployment_that_is_none(ten, change):
    state = Deployment.of(ten, choose_thresholds(hits_by_class(ten), Goal()), Goal()).state()
    assert Deployment.from_state(state, 1)
    with pytest.raises(ValueError):
        Deployment.from_state(state | change, 1)
