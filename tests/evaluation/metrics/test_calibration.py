"""D-ECE by hand, and a calibration that makes scores honest on images it has not seen."""

import numpy as np
import pytest

from detector.evaluation.metrics.analysis import analyse
from detector.evaluation.metrics.average_precision import hits_by_class
from detector.evaluation.metrics.calibration import calibration_bins, d_ece, fit_calibration
from detector.evaluation.metrics.matching import match
from detector.evaluation.metrics.score_thresholds import Goal, choose_thresholds


def test_d_ece_by_hand():
    bins = calibration_bins(np.array([0.1, 0.12, 0.95, 1.0]), np.array([True, False, True, True]))
    assert bins == [
        {"score": pytest.approx(0.11), "precision": 0.5, "count": 2},
        {"score": pytest.approx(0.975), "precision": 1.0, "count": 2},
    ]
    assert d_ece(bins) == pytest.approx(0.5 * 0.39 + 0.5 * 0.025)
    assert d_ece([]) == 0


@pytest.fixture
def overconfident(scene):
    """Two classes: detections of `a` are right half as often as they say, of the rare `b` seldom seen."""
    rng = np.random.default_rng(0)
    objects, found = [], []
    for image in range(400):
        score = rng.random()
        objects.append((image, "a", 0, 0, 50, 50))
        place = (0, 0, 50, 50) if rng.random() < score / 2 else (500, 500, 50, 50)
        found.append((image, "a", score, *place))
    found.append((0, "b", 0.9, 700, 700, 10, 10))
    data, detections = scene(["a", "b"], objects, found)
    return match(detections, data)


def test_calibration_lowers_d_ece_on_other_images(overconfident):
    learnt = np.arange(400) < 200
    calibration = fit_calibration(overconfident, learnt)
    detections = overconfident.detections.select(~learnt[overconfident.detections.images])
    right = (overconfident.object_of >= 0)[~learnt[overconfident.detections.images]]
    calibrated = calibration(detections.scores, detections.labels)
    before, after = (d_ece(calibration_bins(s, right)) for s in (detections.scores, calibrated))
    assert before > 0.2 and after < 0.1
    assert (np.diff(calibrated[np.argsort(detections.scores)]) >= 0).all()


def test_a_class_rarely_right_takes_the_map_of_all(overconfident):
    calibration = fit_calibration(overconfident)
    scores = np.linspace(0, 1, 11).astype(np.float32)
    a, b = (calibration(scores, np.full(11, label)) for label in (0, 1))
    assert 0.2 < b[9] < 0.6 and np.abs(a - b).max() < 0.1


def test_equal_scores_are_one_level(scene):
    objects = [(i, "a", 0, 0, 50, 50) for i in range(24)]
    found = [(i, "a", 0.5, *((0, 0, 50, 50) if i % 2 else (500, 500, 50, 50))) for i in range(24)]
    data, detections = scene(["a"], objects, found)
    calibration = fit_calibration(match(detections, data))
    assert calibration(np.array([0.5], np.float32), np.zeros(1, int)).tolist() == [0.5]


def test_nothing_to_learn_from_leaves_scores_as_they_are(scene):
    data, detections = scene(["a"], [(0, "a", 0, 0, 9, 9)], [])
    calibration = fit_calibration(match(detections, data))
    assert calibration(np.array([0.25, 0.75], np.float32), np.zeros(2, int)).tolist() == [0.25, 0.75]


def test_the_report_s_calibration_is_measured_on_images_it_has_not_seen(scene):
    # what even images teach is wrong for odd ones: honest figures show that
    objects = [(i, "a", 0, 0, 50, 50) for i in range(60)]
    found = [(i, "a", 0.5, *((0, 0, 50, 50) if i % 2 else (500, 500, 50, 50))) for i in range(60)]
    data, detections = scene(["a"], objects, found)
    matching = match(detections, data)
    hits = hits_by_class(matching)
    metrics = analyse(matching, hits, choose_thresholds(hits, Goal()), None)
    assert metrics["calibration"]["d_ece"] == 0 and metrics["calibration"]["d_ece_calibrated"] == 1
