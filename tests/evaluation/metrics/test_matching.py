"""COCO's figures from our arrays: pycocotools', crowds, sizes and ties included; and single cases by hand."""

import numpy as np
import pytest

from detector.data.coco import read_coco
from detector.data.descriptor import load_descriptor
from detector.evaluation.metrics.average_precision import RECALLS, SUMMARY, average_precision, points_reached
from detector.evaluation.metrics.coco import pycocotools_metrics
from detector.evaluation.metrics.matching import match


@pytest.fixture
def same_as_pycocotools(our_figures):
    def same_as_pycocotools(detections, data):
        ours, theirs = our_figures(detections, data), pycocotools_metrics(detections, data)
        assert [ours[name] for name in SUMMARY] == pytest.approx([theirs[name] for name in SUMMARY], abs=1e-9)
        for name, row in theirs["per_class"].items():
            assert ours["per_class"][name] == pytest.approx(row, abs=1e-9), name
        return ours

    return same_as_pycocotools


@pytest.mark.parametrize("seed", [0, 1])
def test_figures_on_coco_with_crowds(real_data, jumble, same_as_pycocotools, seed):
    data = read_coco(load_descriptor(real_data("coco_tiny") / "coco_tiny.yaml").split("val"))
    assert data.iscrowd.any()
    ours = same_as_pycocotools(jumble(data, seed), data)
    assert min(ours["APs"], ours["APm"], ours["APl"]) > 0.1


def test_figures_on_blood_cells_with_more_than_100_of_a_class(real_data, jumble, same_as_pycocotools):
    data = read_coco(load_descriptor(real_data("bccd") / "bccd.yaml").split("val"), bad="drop")
    same_as_pycocotools(jumble(data, 2, per_image=150), data)


def test_image_ids_in_any_order(scene, jumble, same_as_pycocotools):
    rng = np.random.default_rng(5)
    objects = [(i, "ab"[i % 2], *rng.integers(0, 40, 2), *rng.integers(5, 120, 2), i % 7 == 0) for i in range(60)]
    data, _ = scene(["a", "b"], objects, [])
    data.image_ids = rng.permutation(len(data)) + 1
    same_as_pycocotools(jumble(data, per_image=9), data)


def test_the_surer_detection_takes_the_object_and_a_crowd_is_never_used_up(scene):
    data, found = scene(
        ["a"],
        [(0, "a", 0, 0, 10, 10), (0, "a", 100, 100, 50, 50, True)],
        [(0, "a", 0.6, 0, 0, 10, 10), (0, "a", 0.9, 0, 0, 10, 8), (0, "a", 0.8, 110, 110, 5, 5),
         (0, "a", 0.7, 120, 120, 5, 5)],
    )  # fmt: skip
    matching = match(found, data)
    assert matching.object_of.tolist() == [-1, 0, -1, -1]
    assert matching.ignored.tolist() == [False, False, True, True]
    assert matching.found_by.tolist() == [1, -1]
    # at IoU 0.85 the surer one is no longer good enough, and the other takes it
    assert matching.objects[0, 7, matching.candidates == 0].item() == 0
    assert matching.objects[0, 7, matching.candidates == 1].item() == -1


def test_no_detections_and_no_objects(scene, our_figures):
    data, found = scene(["a", "b"], [(0, "a", 0, 0, 10, 10)], [])
    assert our_figures(found, data)["AP"] == 0
    assert our_figures(found, data)["per_class"]["b"] == {"AP": -1, "AP50": -1, "num_gt": 0}


def test_points_reached_falls_with_every_recall_where_numpy_s_search_does():
    recall = np.concatenate([np.arange(n + 1) / n for n in range(1, 300)])
    expected = np.where(recall > 0, np.searchsorted(RECALLS, recall, side="right"), 0)
    assert points_reached(recall).tolist() == expected.tolist()


def test_average_precision_by_hand():
    # two objects; right, wrong, right: precision 1 up to recall 0.5 (51 points), then 2/3 (50 points)
    value = average_precision(np.array([1, 1, 2]), np.array([1, 2, 3]), 2)
    assert value == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert np.isnan(average_precision(np.array([0]), np.array([1]), 0))
