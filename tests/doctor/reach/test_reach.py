"""Reach against all the anchors of the model, one by one; and proposals that reach more."""

import json

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from detector.config.file import validate
from detector.data.coco import read_coco
from detector.data.descriptor import Split
from detector.data.transforms import build_transform, letterbox
from detector.doctor.reach.reach import measure_reach
from detector.doctor.reach.resized_objects import grids, resize_objects
from detector.models.anchors import AnchorGenerator
from detector.models.build import build_model
from detector.utils.errors import InputError


def config_of(image_size, anchors=None, finest="p3", **loss):
    return validate(
        {
            "data": {"dataset": "x", "image_size": image_size},
            "model": {
                "backbone": {"name": "resnet18", "weights": None, "norm": "batch"},
                "neck": {"channels": 8, "finest": finest},
                "head": {"depth": 0, "width": 8},
                "anchors": anchors or {},
            },
            "loss": loss,
        },
        "test",
    )


def data_of(tmp_path, boxes, sizes=((160, 120), (90, 130), (97, 61)), labels=None, crowds=()):
    """boxes: (image, x, y, w, h)."""
    tree = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": w, "height": h} for i, (w, h) in enumerate(sizes)],
        "annotations": [
            {"id": b, "image_id": int(i), "category_id": int(labels[b]) if labels is not None else 0, "bbox": box}
            | {"iscrowd": int(b in crowds)}
            for b, (i, *box) in enumerate(boxes)
        ],
        "categories": [{"id": 0, "name": "thing"}, {"id": 1, "name": "other"}],
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(tree))
    return read_coco(Split(tmp_path, path))


def random_boxes(count, sizes, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, len(sizes), count)
    room = np.array(sizes, float)[image]
    sides = np.minimum(np.exp(rng.uniform(0, 5.5, (count, 2))), room)
    corner = rng.uniform(0, 1, (count, 2)) * (room - sides)
    return np.column_stack([image, corner, sides]).tolist()


@pytest.mark.parametrize("image_size", [128, 200, {"short": 64, "long": 96}, {"short": 170, "long": 300}])
@pytest.mark.parametrize(
    ("anchors", "finest"),
    [
        ({}, "p3"),
        ({}, "p2"),
        ({"rule": "torchvision"}, "p3"),
        ({"base_size": 9.5, "scales": 2, "ratios": [0.2, 1.5, 4]}, "p3"),
    ],
)
def test_best_iou_is_that_of_all_anchors_of_the_model(tmp_path, image_size, anchors, finest):
    sizes = [(160, 120), (90, 130), (97, 61), (40, 220)]
    boxes = random_boxes(300, sizes)
    boxes += [[0, -20, -30, 60, 50], [1, 80, 100, 60, 60], [2, 0, 0, 97, 61]]  # sticking out; all of an image
    data = data_of(tmp_path, boxes, sizes)
    config = config_of(image_size, anchors, finest)
    got = measure_reach(data, config).best_iou

    model, transform = build_model(config.model, 2).eval(), build_transform(config.data.image_size, None)
    expected = []
    for i in range(len(data)):
        content, fed, _ = transform(np.zeros((data.heights[i], data.widths[i], 3), np.uint8), *data.target_boxes(i))
        image = torch.from_numpy(letterbox(content, config.data.image_size)).permute(2, 0, 1)[None]
        padded = [-side % 32 for side in image.shape[-2:]]
        image = torch.nn.functional.pad(image, (0, padded[1], 0, padded[0]))
        expected.append(box_iou(torch.from_numpy(fed), model(image)["anchors"]).amax(dim=1))
    expected = torch.cat(expected).numpy()
    assert len(got) == len(boxes)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_grids_are_those_of_the_model():
    config = config_of(64)
    padded, cells = grids(config.model, np.array([[64, 96], [33, 320]]))
    assert padded.tolist() == [[64, 96], [64, 320]]
    assert cells[0].tolist() == [[8, 12], [4, 6], [2, 3], [1, 2], [1, 1]]
    assert cells[1].tolist() == [[8, 40], [4, 20], [2, 10], [1, 5], [1, 3]]
    _, cells = grids(config_of(64, finest="p2").model, np.array([[64, 96]]))
    assert cells[0].tolist() == [[16, 24], [8, 12], [4, 6], [2, 3], [1, 2], [1, 1]]


@pytest.mark.parametrize("image_size", [128, {"short": 170, "long": 300}])
@pytest.mark.parametrize("name", ["atss", "tal"])
def test_reached_by_centre_is_what_all_anchors_of_the_model_say(tmp_path, image_size, name):
    sizes = [(160, 120), (90, 130), (97, 61), (40, 220)]
    data = data_of(tmp_path, random_boxes(300, sizes) + [[0, -20, -30, 60, 50]], sizes)
    config = config_of(image_size, {"scales": 1, "ratios": [1.0]}, assigner={"name": name})
    got = measure_reach(data, config)

    objects, model = resize_objects(data, config.data.image_size), build_model(config.model, 2).eval()
    for box, image, reached in zip(objects.boxes, objects.images, got.is_reached, strict=True):
        height, width = objects.padded_sizes[image].tolist()
        anchors = model.anchors((height, width), _grids(height, width), torch.device("cpu")).numpy()
        x, y = (anchors[:, 0] + anchors[:, 2]) / 2, (anchors[:, 1] + anchors[:, 3]) / 2
        inside = np.minimum(np.minimum(x - box[0], box[2] - x), np.minimum(y - box[1], box[3] - y)) > 0.01
        assert reached == inside.any(), box
    assert 0.5 < got.ceiling < 1 and got.ceiling == got.is_reached.mean()
    assert got.reached[0] == pytest.approx(got.ceiling) and got.lost[0] == pytest.approx(1 - got.ceiling)
    assert got.proposal is None and all(min(lost.resized) < 16 for lost in got.worst)


def _grids(height: int, width: int) -> list[tuple[int, int]]:
    """Of the levels of an image of sides that are multiples of 32."""
    grids = [(height // stride, width // stride) for stride in (8, 16, 32)]
    for _ in range(2):
        grids.append(tuple(-(-side // 2) for side in grids[-1]))
    return grids


def test_the_sentences_are_those_of_the_assigner(tmp_path):
    boxes = [[0, 48, 48, 32, 32], [0, 65, 65, 6, 6], [0, 50, 66, 32, 4]]  # the last two lie between the centres
    data = data_of(tmp_path, boxes, [(128, 128)])
    by_iou = "\n".join(measure_reach(data, config_of(128)).lines())
    assert "IoU >= 0.5" in by_iou and "anchors with an IoU of 0.5 or more reach 33.3% of the objects" in by_iou
    for name in ("atss", "tal"):
        reach = measure_reach(data, config_of(128, assigner={"name": name}))
        text = "\n".join(reach.lines())
        assert "IoU >=" not in text and "with an IoU of" not in text and "low_quality" not in text
        assert f"{name} trains anchors whose centre lies in the object: 33.3% of the objects hold one" in text
        assert "no anchor is trained for the others (loss.assigner.every_object=true gives them some)" in text
        assert "no anchor has its centre in 2 objects: annotation 1 (thing, 6x6 px after resizing" in text
        reach = measure_reach(data, config_of(128, assigner={"name": name, "every_object": True}))
        assert "learnt by the anchors that fit it best (every_object)" in "\n".join(reach.lines())
        assert reach.lines()[0].split() == ["class", "boxes", "a", "centre", "median"]
        reach = measure_reach(data_of(tmp_path, boxes[:1], [(128, 128)]), config_of(128, assigner={"name": name}))
        assert reach.sentence().endswith("100.0% of the objects hold one")
    reach = measure_reach(data, config_of(128, assigner={"low_quality": False}))
    assert "no anchor is trained for the others (low_quality is off)" in "\n".join(reach.lines())


def test_shares_and_the_objects_that_no_anchor_reaches(tmp_path):
    # anchors of 32x32 and, as sides are rounded, 46x22 are centred on (64, 64): the first; what is best in the second
    rule = {"rule": "torchvision"}
    boxes = [[0, 48, 48, 32, 32], [0, 56, 56, 16, 16], [0, 48, 63, 32, 2], [0, 48, 48, 32, 32]]
    data = data_of(tmp_path, boxes, [(128, 128)], labels=[0, 0, 1, 1], crowds={3})
    result = measure_reach(data, config_of(128, rule))
    assert result.best_iou.tolist() == pytest.approx([1, 256 / 1012, 64 / 1012])
    assert result.boxes.tolist() == [2, 1]
    assert result.reached.tolist() == [0.5, 0]
    assert result.lost.tolist() == [0.5, 1]
    assert result.median.tolist() == pytest.approx([(1 + 256 / 1012) / 2, 64 / 1012])
    assert result.ceiling == pytest.approx(1 / 3)
    sliver, small = result.worst
    assert (sliver.annotation_id, sliver.class_name, sliver.file_name) == (2, "other", "0.jpg")
    assert (sliver.box, sliver.resized) == ((48, 63, 32, 2), (32, 2))
    assert small.annotation_id == 1 and small.best_iou == pytest.approx(256 / 1012)


def test_a_class_without_objects_is_not_a_number(tmp_path):
    result = measure_reach(data_of(tmp_path, [[0, 48, 48, 32, 32]], [(128, 128)]), config_of(128))
    assert np.isnan(result.reached[1]) and np.isnan(result.median[1])
    nothing = measure_reach(data_of(tmp_path, [], [(128, 128)]), config_of(128))
    assert np.isnan(nothing.ceiling) and nothing.proposal is None and nothing.lines()


def test_proposed_anchors_reach_thin_boxes(tmp_path):
    rng = np.random.default_rng(0)
    height = rng.uniform(180, 250, 200)
    boxes = np.column_stack([np.zeros(200), *rng.uniform(0, 140, (2, 200)), height / 8, height]).tolist()
    data = data_of(tmp_path, boxes, [(400, 400)])
    config = config_of(400)
    before = measure_reach(data, config)
    assert before.reached[0] < 0.05
    proposal = before.proposal
    assert proposal.before.tolist()[0] == before.reached[0]
    assert proposal.after[0] > 0.95
    # what is promised is what those anchors give
    after = measure_reach(data, config.changed({"model.anchors": proposal.anchors}))
    assert after.reached[0] == proposal.after[0]
    assert after.proposal is None


def test_anchors_that_fit_stay(tmp_path):
    rng = np.random.default_rng(0)
    sides = rng.uniform(80, 160, (2, 400))
    boxes = np.column_stack([np.zeros(400), *rng.uniform(0, 240, (2, 400)), *sides]).tolist()
    result = measure_reach(data_of(tmp_path, boxes, [(400, 400)]), config_of(400))
    assert result.ceiling > 0.98 and result.proposal is None


def test_small_boxes_want_a_smaller_base_size_and_no_other_ratios(tmp_path):
    rng = np.random.default_rng(0)
    boxes = np.column_stack([np.zeros(300), *rng.uniform(0, 180, (2, 300)), *rng.uniform(16, 20, (2, 300))]).tolist()
    proposal = measure_reach(data_of(tmp_path, boxes, [(200, 200)]), config_of(200)).proposal
    assert 14 <= proposal.anchors.base_size <= 20
    assert (proposal.anchors.scales, proposal.anchors.ratios) == (3, [0.5, 1.0, 2.0])


def test_anchors_for_a_detectors_weights_keep_their_number(tmp_path):
    rng = np.random.default_rng(0)
    area, ratio = rng.uniform(80, 120, 400) ** 2, rng.choice([1 / 16, 1 / 4, 1, 4, 16], 400)
    sides = np.sqrt(area / ratio), np.sqrt(area * ratio)
    data = data_of(tmp_path, np.column_stack([np.zeros(400), *rng.uniform(0, 110, (2, 400)), *sides]), [(600, 600)])
    config = config_of(600, assigner={"positive_iou": 0.7})
    assert len(measure_reach(data, config).proposal.anchors.ratios) > 3
    config = config.changed({"model.weights": "some.pt"})
    assert measure_reach(data, config).proposal is None  # three ratios can do no better here

    sides = np.sqrt(area / (5 + ratio % 10)), np.sqrt(area * (5 + ratio % 10))  # but here they can
    data = data_of(tmp_path, np.column_stack([np.zeros(400), *rng.uniform(0, 110, (2, 400)), *sides]), [(600, 600)])
    kept = measure_reach(data, config).proposal
    assert (kept.anchors.scales, len(kept.anchors.ratios)) == (3, 3)
    assert kept.mean_after > kept.mean_before + 0.3


def test_vanishing_anchors_are_an_input_error(tmp_path):
    config = config_of(128, anchors={"base_size": 0.5, "rule": "torchvision"})
    with pytest.raises(InputError, match="round to 0"):
        measure_reach(data_of(tmp_path, [[0, 48, 48, 32, 32]], [(128, 128)]), config)


@pytest.mark.parametrize("rule", ["exact", "torchvision"])
def test_shapes_of_one_cell_are_the_generators(rule):
    generator = AnchorGenerator(base_size=9, scales=2, ratios=[0.3, 1], rule=rule)
    grid = generator((128, 128), [(16, 16), (8, 8)], torch.device("cpu"))
    single = generator((1, 1), [(1, 1), (1, 1)], torch.device("cpu"))
    assert torch.equal(grid[:4], single[:4]) and torch.equal(grid[16 * 16 * 4 :][:4], single[4:])


def test_resized_objects_of_a_letterboxed_and_a_resized_image(tmp_path):
    data = data_of(tmp_path, [[0, 16, 12, 32, 24], [2, 90, 50, 30, 30]], [(160, 120), (90, 130), (97, 61)])
    square = resize_objects(data, 80)
    assert square.boxes[0].tolist() == [8, 6, 24, 18] and square.padded_sizes.tolist() == [[96, 96]] * 3
    free = resize_objects(data, config_of({"short": 60, "long": 80}).data.image_size)
    assert free.padded_sizes.tolist() == [[64, 96], [96, 64], [64, 96]]
    assert free.boxes[1] == pytest.approx([90 * 80 / 97, 50 * 50 / 61, 80, 50])
    drawn = resize_objects(data, config_of({"short": [30, 60], "long": 80}).data.image_size)  # as in evaluation
    assert drawn.boxes.tolist() == free.boxes.tolist() and drawn.padded_sizes.tolist() == free.padded_sizes.tolist()


@pytest.mark.parametrize("anchors", [{"rule": "torchvision"}, {"rule": "exact"}])
def test_proposed_anchors_keep_the_rule_and_the_finest_level(tmp_path, anchors):
    rng = np.random.default_rng(0)
    boxes = np.column_stack([np.zeros(300), *rng.uniform(0, 180, (2, 300)), *rng.uniform(5, 7, (2, 300))]).tolist()
    config = config_of(200, {**anchors, "base_size": 64}, "p2")
    proposal = measure_reach(data_of(tmp_path, boxes, [(200, 200)]), config).proposal
    assert proposal.anchors.rule == anchors["rule"]
    after = measure_reach(data_of(tmp_path, boxes, [(200, 200)]), config.changed({"model.anchors": proposal.anchors}))
    assert after.reached[0] == proposal.after[0] > 0.5
