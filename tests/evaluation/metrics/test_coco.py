"""COCO's figures: the same from both backends and from plain pycocotools on the written files, and by hand."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.data.coco import load_descriptor, read_coco
from detector.evaluation.detections import Detections, coco_results
from detector.evaluation.metrics.average_precision import SUMMARY
from detector.evaluation.metrics.coco import coco_metrics
from detector.evaluation.report.tables import coco_table, per_class_table


@pytest.fixture
def data(tiny_dataset):
    return read_coco(load_descriptor(tiny_dataset).split("val"))


def perfect(data) -> Detections:
    """Every object, found with score 0.9."""
    xyxy = data.boxes.copy()
    xyxy[:, 2:] += xyxy[:, :2]
    return Detections(
        images=np.repeat(np.arange(len(data)), np.diff(data.first)),
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


@pytest.mark.parametrize("backend", ["arrays", "pycocotools"])
def test_perfect_detections_have_ap_1(data, backend):
    metrics = coco_metrics(perfect(data), data, backend)
    assert metrics["AP"] == metrics["AP50"] == metrics["AR100"] == pytest.approx(1)
    assert metrics["APm"] == metrics["APl"] == -1  # no object of that size
    assert metrics["per_class"] == {
        "dark": {"AP": pytest.approx(1), "AP50": pytest.approx(1), "num_gt": 3},
        "light": {"AP": pytest.approx(1), "AP50": pytest.approx(1), "num_gt": 3},
    }


@pytest.mark.parametrize("backend", ["arrays", "pycocotools"])
def test_one_class_found_the_other_missed(data, backend):
    detections = perfect(data)
    metrics = coco_metrics(detections.select(detections.labels == 1), data, backend)
    assert metrics["AP"] == pytest.approx(0.5)
    assert metrics["per_class"]["light"]["AP"] == pytest.approx(1)
    assert metrics["per_class"]["dark"] == {"AP": 0, "AP50": 0, "num_gt": 3}


@pytest.mark.parametrize("backend", ["arrays", "pycocotools"])
def test_no_detections_at_all(data, backend):
    metrics = coco_metrics(Detections.concatenate([]), data, backend)
    assert metrics["AP"] == metrics["AR100"] == 0


def test_both_backends_and_plain_pycocotools_on_the_files_agree(data, tiny_dataset, tmp_path):
    detections = noisy(data)
    ours = coco_metrics(detections, data, "arrays")
    assert 0 < ours["AP"] < 1
    reference = coco_metrics(detections, data, "pycocotools")
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


def test_tables_show_the_rare_class_last_and_a_dash_where_there_is_nothing():
    metrics = dict.fromkeys(SUMMARY, 0.5) | {"APl": -1.0}
    metrics["per_class"] = {
        "rare": {"AP": 0.1, "AP50": 0.2, "num_gt": 2},
        "common": {"AP": 0.8, "AP50": 0.9, "num_gt": 90},
    }
    table = coco_table(metrics).splitlines()
    assert table[0] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.500"
    assert table[5].endswith("=     -")
    assert [line.split() for line in per_class_table(metrics).splitlines()] == [
        ["class", "objects", "AP", "AP50"], ["common", "90", "0.800", "0.900"], ["rare", "2", "0.100", "0.200"],
    ]  # fmt: skip
