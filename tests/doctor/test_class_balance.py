"""Groups, company, sizes and the assignment of anchors, against hand counts."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from detector.config.file import validate
from detector.data.coco import read_coco
from detector.data.descriptor import Split
from detector.doctor.class_balance import describe_classes, gini
from detector.losses.assigners import ASSIGNERS, build_assigner
from detector.models.build import build_model

SMALL = {
    "model": {
        "backbone": {"name": "resnet18", "weights": None, "norm": "batch"},
        "neck": {"channels": 8},
        "head": {"depth": 0, "width": 8},
    }
}


def config_of(image_size, **model):
    tree = {"data": {"dataset": "x", "image_size": image_size}, **SMALL}
    return validate({**tree, "model": {**tree["model"], **model}}, "test")


def read(path):
    return read_coco(Split(path.parent, path), None, "drop")


def written(tmp_path, images, annotations, categories=("a", "b", "c")):
    """A COCO file of images (w, h) and annotations (image, category, box, ...)."""
    tree = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": w, "height": h} for i, (w, h) in enumerate(images)],
        "annotations": [
            {"id": b, "image_id": image, "category_id": category, "bbox": box, "iscrowd": int(bool(crowd))}
            for b, (image, category, box, *crowd) in enumerate(annotations, 1)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(categories)],
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(tree))
    return path


def test_taco_against_a_count_by_hand(real_data):
    path = real_data("taco") / "annotations.json"
    report = describe_classes(read(path), config_of(320))

    tree = json.loads(path.read_text())
    name = {c["id"]: c["name"] for c in tree["categories"]}
    boxes = Counter(name[a["category_id"]] for a in tree["annotations"])
    classes_of = defaultdict(set)
    for a in tree["annotations"]:
        classes_of[a["image_id"]].add(name[a["category_id"]])
    together = Counter((a, b) for classes in classes_of.values() for a in classes for b in classes)
    images = Counter(c for classes in classes_of.values() for c in classes)
    group = {c: "head" if boxes[c] >= 333.5 else "tail" if boxes[c] < 66.7 else "medium" for c in name.values()}

    assert boxes["Cigarette"] == 667 and min(boxes.values()) == 1
    assert dict(zip(report.class_names, report.boxes.tolist(), strict=True)) == {c: boxes[c] for c in name.values()}
    assert dict(zip(report.class_names, report.images.tolist(), strict=True)) == {c: images[c] for c in name.values()}
    assert dict(zip(report.class_names, report.groups, strict=True)) == group
    assert Counter(group.values()) == {"head": 3, "medium": 16, "tail": 41}
    for i, a in enumerate(report.class_names):
        for j, b in enumerate(report.class_names):
            assert report.together[i, j] == together[a, b], (a, b)
    assert report.imbalance_ratio == 667
    objects = Counter(a["image_id"] for a in tree["annotations"])
    assert report.objects_an_image[1] == sum(n == 1 for n in objects.values())
    assert len(report.objects_an_image) - 1 == max(objects.values()) == 90


def test_sizes_and_aspects_are_those_of_the_fed_image(tmp_path):
    path = written(
        tmp_path,
        [(200, 100), (100, 200)],
        [(0, 0, [0, 0, 20, 40]), (1, 0, [0, 0, 80, 10]), (1, 1, [0, 190, 100, 100]), (0, 2, [0, 0, 50, 50], True)],
    )
    report = describe_classes(read(path), config_of({"short": 50, "long": 100}))
    # 20x40 and 80x10 become 10x20 and 40x5; of 100x100 the 10 rows in the image, as 50x5
    assert report.boxes.tolist() == [2, 1, 0]
    assert report.sizes[0, [0, 2, 4]] == pytest.approx([14.142136, 14.142136, 14.142136])
    assert report.sizes[1, 2] == pytest.approx(15.811388)
    assert report.aspects[0, 2] == pytest.approx((2 + 0.125) / 2)
    assert np.isnan(report.sizes[2]).all() and np.isnan(report.aspects[2]).all()
    assert report.size_histogram.sum(axis=1).tolist() == [2, 1, 0]
    assert report.size_histogram[0, 4] == 2  # from 8 to 16 px
    assert report.objects_an_image.tolist() == [0, 1, 1]


def test_imbalance_ratio_and_gini_of_known_counts(tmp_path):
    assert gini(np.array([5, 5, 5])) == 0
    assert gini(np.array([1, 3])) == pytest.approx(0.25)
    assert gini(np.array([6, 1, 2, 3])) == pytest.approx(0.3333333)  # sum of all differences 32, 2 * 4 * 12
    assert gini(np.array([1, 999])) == pytest.approx(0.499)
    assert np.isnan(gini(np.array([])))


def test_no_object_at_all(tmp_path):
    report = describe_classes(read(written(tmp_path, [(64, 64)], [])), config_of(64))
    assert np.isnan(report.imbalance_ratio) and np.isnan(report.gini)
    assert report.assignments.positives == 0 and report.lines()


@pytest.mark.parametrize("name", ASSIGNERS)
def test_assignments_are_those_of_the_model_and_the_assigner(tmp_path, name):
    # on 0 two boxes in the same place: whatever anchor is positive answers for the first
    path = written(
        tmp_path,
        [(96, 64), (64, 96), (96, 64)],
        [(0, 0, [30, 20, 20, 20]), (0, 1, [30, 20, 20, 20]), (1, 2, [5, 5, 40, 60]), (1, 0, [50, 80, 6, 6])],
    )
    config, data = config_of({"short": 64, "long": 96}, anchors={"base_size": 16}), read(path)
    config = config.changed({"loss.assigner.name": name})
    got = describe_classes(data, config).assignments
    assigner = build_assigner(config.loss.assigner)

    model = build_model(config.model, 3).eval()
    positives, ignored, anchors, of_class = [], [], [], np.zeros(3, int)
    for i in range(3):
        h, w = int(data.heights[i]), int(data.widths[i])
        outputs = model(torch.zeros(1, 3, h, w))
        outputs["deltas"], outputs["logits"] = (torch.zeros_like(outputs[key]) for key in ("deltas", "logits"))
        boxes, labels = data.target_boxes(i)
        answer = assigner(outputs, [{"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels)}])
        positives.append(int((answer.classes >= 0).sum()))
        ignored.append(int((answer.classes == -2).sum()))
        anchors.append(len(outputs["anchors"]))
        of_class += np.bincount(answer.classes[answer.classes >= 0].numpy(), minlength=3)
    assert (got.images, got.anchors) == (3, np.mean(anchors))
    assert (got.positives, got.ignored) == (np.mean(positives), np.mean(ignored))
    assert got.negatives == pytest.approx(np.mean(anchors) - np.mean(positives) - np.mean(ignored))
    assert got.class_positives.tolist() == of_class.tolist()
    assert got.objects.tolist() == [2, 1, 1]
    assert got.untrained.tolist() == [0, 1, 0] if name == "max_iou" else got.untrained[1] == 1
    text = "\n".join(describe_classes(data, config).lines())
    assert f"  without a positive anchor: {got.untrained.sum()} of the 4 objects in these (" in text
    assert ("overlap another object more" in text) == (name == "max_iou")
    assert ("has its centre in them" in text) == (name != "max_iou")
    assert ("before the first step" in text) == (name == "tal")
