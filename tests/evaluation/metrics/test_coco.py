"""COCO's figures: the same from both backends and from plain pycocotools on the written files, and by hand."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.data.coco import read_coco
from detector.data.descriptor import load_descriptor
from detector.evaluation.detections import Detections, coco_results
from detector.evaluation.metrics.analysis import analyse
from detector.evaluation.metrics.average_precision import SUMMARY, hits_by_class
from detector.evaluation.metrics.coco import check_measurable, figures_of, pycocotools_metrics, value_of
from detector.evaluation.metrics.matching import match
from detector.evaluation.metrics.score_thresholds import Goal, choose_thresholds
from detector.evaluation.report.tables import coco_table, per_class_table
from detector.utils.errors import InputError


@pytest.fixture
def data(tiny_dataset):
    return read_coco(load_descriptor(tiny_dataset).split("val"))


@pytest.fixture(params=["arrays", "pycocotools"])
def figures(request, our_figures):
    """figures(detections, data), from either implementation."""
    return our_figures if request.param == "arrays" else pycocotools_metrics


def perfect(data) -> Detections:
    """Every object, found with score 0.9."""
    xyxy = data.boxes.copy()
    xyxy[:, 2:] += xyxy[:, :2]
    return Detections(
        images=data.box_images,
        boxes=xyxy.astype(np.float32),
        scores=np.full(len(xyxy), 0.9, np.float32),
        labels=data.labels.astype(np.int64),
    )


def noisy(data, seed: int = 0) -> Detections:
    """Every object three times: displaced, with random scores, some of the wrong class."""
    rng = np.random.default_rng(seed)
    copies = Detections.concatenate([perfect(data)] * 3)
    order = np.argsort(copies.images, kind="stable")
    copies = Detections(*(getattr(copies, f)[order] for f in ("images", "boxes", "scores", "labels")))
    copies.boxes += rng.normal(0, 2, copies.boxes.shape).astype(np.float32)
    copies.scores[:] = rng.random(len(order), dtype=np.float32)
    wrong = rng.random(len(order)) < 0.2
    copies.labels[wrong] = 1 - copies.labels[wrong]
    return copies


def test_perfect_detections_have_ap_1(data, figures):
    metrics = figures(perfect(data), data)
    assert metrics["AP"] == metrics["AP50"] == metrics["AR100"] == pytest.approx(1)
    assert metrics["APm"] == metrics["APl"] == -1  # no object of that size
    assert metrics["per_class"] == {
        "dark": {"AP": pytest.approx(1), "AP50": pytest.approx(1), "num_gt": 3},
        "light": {"AP": pytest.approx(1), "AP50": pytest.approx(1), "num_gt": 3},
    }


def test_one_class_found_the_other_missed(data, figures):
    detections = perfect(data)
    metrics = figures(detections.select(detections.labels == 1), data)
    assert metrics["AP"] == pytest.approx(0.5)
    assert metrics["per_class"]["light"]["AP"] == pytest.approx(1)
    assert metrics["per_class"]["dark"] == {"AP": 0, "AP50": 0, "num_gt": 3}


def test_no_detections_at_all(data, figures):
    metrics = figures(Detections.concatenate([]), data)
    assert metrics["AP"] == metrics["AR100"] == 0


def test_both_backends_and_plain_pycocotools_on_the_files_agree(data, tiny_dataset, tmp_path, our_figures):
    detections = noisy(data)
    ours = our_figures(detections, data)
    assert 0 < ours["AP"] < 1
    reference = pycocotools_metrics(detections, data)
    file = tmp_path / "detections.json"
    file.write_text(json.dumps(coco_results(detections, data)))
    truth = COCO(str(tiny_dataset.parent / "val.json"))
    plain = COCOeval(truth, truth.loadRes(str(file)), "bbox")
    plain.evaluate()
    plain.accumulate()
    plain.summarize()
    for name, value in zip(SUMMARY, plain.stats, strict=True):
        assert ours[name] == pytest.approx(value, abs=1e-9), name
        assert reference[name] == pytest.approx(value, abs=1e-9), name
    for name in data.class_names:
        assert ours["per_class"][name] == pytest.approx(reference["per_class"][name], abs=1e-9)


def test_results_have_the_dataset_s_own_ids(data):
    results = coco_results(perfect(data), data)
    assert {r["category_id"] for r in results} == {3, 7}
    assert [r["image_id"] for r in results] == [15, 15, 25, 25, 35, 35]
    assert results[0]["bbox"] == data.boxes[0].tolist()


@pytest.fixture
def imbalanced(scene):
    """20 training boxes of a (head), 4 of b (medium), 1 of c and none of d (both tail), which has no object on val.

    a and b are found, b with an IoU of 0.6; of the two objects of c one is found.
    """
    spots = [(0, "a", 0, 0, 50, 50), (0, "b", 100, 0, 50, 50), (0, "c", 200, 0, 50, 50), (0, "c", 300, 0, 50, 50)]
    found = [(0, "a", 0.9, 0, 0, 50, 50), (0, "b", 0.9, 100, 0, 50, 30), (0, "c", 0.9, 200, 0, 50, 50)]
    data, detections = scene(["a", "b", "c", "d"], spots, found)
    return data, match(detections, data), np.array([20, 4, 1, 0])


def test_ap_by_frequency_group_by_hand(imbalanced):
    data, matching, train_counts = imbalanced
    figures = figures_of(hits_by_class(matching), data, train_counts)
    tail = 51 / 101  # precision 1 up to recall 0.5 for c; d has no object
    assert figures["groups"] == {
        "head": {"AP": pytest.approx(1), "AP50": pytest.approx(1), "classes": ["a"]},
        "medium": {"AP": pytest.approx(0.3), "AP50": pytest.approx(1), "classes": ["b"]},  # IoU 0.5, 0.55 and 0.6
        "tail": {"AP": pytest.approx(tail), "AP50": pytest.approx(tail), "classes": ["c", "d"]},
    }
    assert value_of(figures, "tail") == pytest.approx(tail)
    assert value_of(figures, "medium") == value_of(figures, "b") == pytest.approx(0.3)
    assert value_of(figures, "AP50") == pytest.approx((1 + 1 + tail) / 3)
    reference = pycocotools_metrics(matching.detections, data)
    same = figures_of(hits_by_class(matching), data, train_counts, reference)
    assert value_of(same, "tail") == pytest.approx(tail)


def test_without_training_counts_classes_are_grouped_by_their_objects_here(imbalanced):
    data, matching, _ = imbalanced
    groups = figures_of(hits_by_class(matching), data, None)["groups"]
    assert {name: row["classes"] for name, row in groups.items()} == {
        "head": ["a", "b", "c"], "medium": [], "tail": ["d"],
    }  # fmt: skip
    assert groups["medium"]["AP"] == groups["tail"]["AP"] == -1


def test_the_analysis_has_the_same_groups(imbalanced):
    data, matching, train_counts = imbalanced
    hits = hits_by_class(matching)
    groups = analyse(matching, hits, choose_thresholds(hits, Goal()), train_counts)["groups"]
    for name, row in figures_of(hits, data, train_counts)["groups"].items():
        assert {key: groups[name][key] for key in row} == row


def test_a_figure_goes_before_a_class_and_a_class_before_a_group_of_its_name(scene):
    data, detections = scene(
        ["tail", "AP"], [(0, "tail", 0, 0, 9, 9), (0, "AP", 50, 50, 9, 9)], [(0, "tail", 0.9, 0, 0, 9, 9)]
    )
    figures = figures_of(hits_by_class(match(detections, data)), data, np.array([90, 1]))
    assert value_of(figures, "AP") == pytest.approx(0.5)  # the class AP has 0
    assert value_of(figures, "tail") == pytest.approx(1)  # the group has 0


def test_which_metric_can_be_measured(imbalanced):
    data, _, train_counts = imbalanced
    for name in ("AP", "AR100", "head", "tail", "c"):
        check_measurable(name, data, train_counts)
    with pytest.raises(InputError, match=r"train.metric: no figure 'tial'; did you mean 'tail'\?"):
        check_measurable("tial", data, train_counts)
    with pytest.raises(InputError, match=r"no figure 'x'; there is: AP, AP50, .*a, b, c, d, head, medium, tail$"):
        check_measurable("x", data, train_counts)
    with pytest.raises(InputError, match="val has no object to measure d on"):
        check_measurable("d", data, train_counts)
    with pytest.raises(InputError, match="val has no object to measure tail on"):
        check_measurable("tail", data, np.array([20, 20, 20, 1]))


def test_tables_show_the_rare_class_last_and_a_dash_where_there_is_nothing():
    metrics = dict.fromkeys(SUMMARY, 0.5) | {"APl": -1.0}
    used = {"threshold": 0.3, "precision": 0.5, "recall": 0.25, "works": True, "chosen": True}
    metrics["per_class"] = {
        "rare": {"AP": 0.1, "AP50": 0.2, "num_gt": 2, "interval": None, "conclusive": False, "own": False, **used},
        "common": {
            "AP": 0.8,
            "AP50": 0.9,
            "num_gt": 90,
            "interval": [0.7, 0.9],
            "conclusive": True,
            "own": True,
            **used,
        },
    }
    table = coco_table(metrics).splitlines()
    assert table[0] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.500"
    assert table[5].endswith("=     -")
    heading, common, rare, *notes = per_class_table(metrics).splitlines()
    assert heading.split() == ["class", "objects", "AP", "AP50", "95", "%", "score", "precision", "recall"]
    assert common.split() == ["common", "90", "0.800", "0.900", "[0.700,", "0.900]", "0.300", "0.500", "0.250"]
    assert rare.split() == ["rare", "2", "0.100", "0.200", "-", "0.300*", "0.500", "0.250", "few"]
    assert [note.split(":")[0] for note in notes] == [" few", " *"]
    metrics["per_class"]["common"]["works"] = metrics["per_class"]["rare"]["works"] = False
    _, common, rare, *_ = per_class_table(metrics).splitlines()
    assert (common.split()[-1], rare.split()[-1]) == ("fails", "few")  # of few objects nothing is concluded
