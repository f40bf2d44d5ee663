"""The advice: what it follows from, and the file that it makes."""

import json
import re

import numpy as np
import pytest

from detector.config.file import load_config
from detector.data.coco import read_coco
from detector.data.descriptor import Split
from detector.doctor.advice.advice import advise
from detector.doctor.advice.augmentation import no_up_and_down
from detector.doctor.advice.config_text import config_lines, write_config
from detector.doctor.advice.enlarge import enlarge
from detector.doctor.advice.finest_level import finest_level
from detector.doctor.advice.image_size import choose_image_size
from detector.doctor.advice.recipe import recipe
from detector.doctor.advice.setting import to_config, to_tree
from detector.doctor.class_balance import describe_classes
from detector.doctor.reach.reach import measure_reach
from detector.training.optim import scaled_lr
from detector.utils.errors import InputError


def data_of(tmp_path, boxes, labels, size=(640, 480), images=100, name="train"):
    """Boxes (B, 4) xywh, spread over the images in turn."""
    tree = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": size[0], "height": size[1]} for i in range(images)],
        "annotations": [
            {"id": b, "image_id": b % images, "category_id": int(label), "bbox": list(map(float, box))}
            for b, (box, label) in enumerate(zip(boxes, labels, strict=True))
        ],
        "categories": [{"id": k, "name": n} for k, n in enumerate(("common", "rare: #1"))],
    }
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(tree))
    return read_coco(Split(tmp_path, path), None, "drop")


def squares(count, side, size=(640, 480), seed=0):
    rng = np.random.default_rng(seed)
    sides = rng.uniform(0.9, 1.1, (count, 2)) * side
    return np.hstack([rng.uniform(0, 1, (count, 2)) * (np.array(size) - sides), sides])


def advice_of(train, val=None, gpu=False, bad_boxes=None):
    settings = recipe("datasets/my.yaml", train, gpu)
    config = to_config(settings)
    classes, reach = describe_classes(train, config), measure_reach(train, config)
    return advise(settings, train, val, classes=classes, reach=reach, bad_boxes=bad_boxes or {})


def reasons(advice):
    return {setting.path: setting.reason for setting in advice.settings}


@pytest.fixture
def cells(tmp_path):
    """A long tail as of blood cells: 1000 boxes of 100 px and 50 of 40 px, without up and down."""
    boxes = np.vstack([squares(1000, 100), squares(50, 40, seed=1), [[5, 5, 0, 0]]])
    return data_of(tmp_path, boxes, [0] * 1000 + [1] * 51)


def test_the_file_is_the_advice_and_every_line_has_its_reason(tmp_path, cells):
    for gpu in (False, True):
        advice = advice_of(cells, gpu=gpu)
        path = tmp_path / f"gpu_{gpu}.yaml"
        write_config(advice.settings, advice.config.data.dataset, path)
        loaded = load_config(path)
        assert loaded.output_dir == f"runs/gpu_{gpu}"
        assert loaded.model_copy(update={"output_dir": None}) == advice.config
        lines = path.read_text().splitlines()
        assert len(lines) > 20
        for line in lines:
            before, hash_, comment = line.partition(" # ")
            assert line.startswith("# ") or hash_ and before.strip() and len(comment) > 5, line


def test_reasons_may_hold_anything_that_a_class_may_be_called(tmp_path, cells):
    advice = advice_of(cells)
    assert "rare: #1" in reasons(advice)["data.image_size"]
    assert advice.config.augment.paste.classes == ["rare: #1"]


def test_nothing_is_overwritten(tmp_path, cells):
    advice, path = advice_of(cells), tmp_path / "my.yaml"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_config(advice.settings, advice.config.data.dataset, path)
    assert path.read_text() == "mine"


def test_what_a_cpu_is_advised_for_a_few_hundred_images_of_cells(cells):
    advice = advice_of(cells, bad_boxes={"train": 1, "val": 0})
    config = advice.config
    assert config.data.image_size.model_dump() == {"short": 240, "long": 320}  # 40 px of 640 become 20
    assert (config.loss.assigner.name, config.model.anchors.scales, config.model.anchors.ratios) == ("atss", 1, [1])
    assert config.data.bad_annotations == "drop"
    assert config.loss.alpha == "effective_number" and config.imbalance == "none"
    assert config.model.backbone.weights is None
    assert config.train.epochs == 143  # as many pixels as 70 epochs of 205 images of this size
    assert (config.train.batch_size, scaled_lr(config.train)) == (4, 1e-3)
    assert "3575 steps, about 15 minutes" in reasons(advice)["train.epochs"]
    assert "square root: 0.001 for 4" in reasons(advice)["train.lr"]


def test_a_gpu_is_advised_the_published_detector(cells):
    config = advice_of(cells, gpu=True).config
    assert config.model.weights == "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1"
    assert (config.train.weight_decay, scaled_lr(config.train)) == (0.05, pytest.approx(2e-4, rel=0.02))
    assert (config.model.anchors.scales, len(config.model.anchors.ratios)) == (3, 3)


def test_balanced_classes_without_bad_boxes_are_left_alone(tmp_path):
    boxes = np.vstack([squares(100, 90), squares(60, 90, seed=1)])
    advice = advice_of(data_of(tmp_path, boxes, [0] * 100 + [1] * 60))
    assert not {"loss.alpha", "data.sampling", "augment.paste", "data.bad_annotations"} & set(reasons(advice))
    assert "plain focal loss" in advice.notes[0]


def test_bad_boxes_of_val_are_a_reason_too(tmp_path):
    advice = advice_of(data_of(tmp_path, squares(100, 90), [0] * 100), bad_boxes={"train": 0, "val": 1})
    assert reasons(advice)["data.bad_annotations"].endswith(": 1 in val")


def test_what_cannot_be_measured_is_said(tmp_path):
    train = data_of(tmp_path, squares(104, 90), [0] * 100 + [1] * 4)
    val = data_of(tmp_path, squares(20, 90), [0] * 20, name="val")
    notes = " ".join(advice_of(train, val).notes)
    assert "fewer than 10 boxes of rare: #1" in notes
    assert "val has fewer than 10 boxes of rare: #1" in notes


@pytest.mark.parametrize(
    ("side", "size", "gpu", "expected", "why"),
    [
        (40, (640, 480), False, {"short": 240, "long": 320}, "common has the smallest objects"),
        (200, (640, 480), False, {"short": 192, "long": 256}, "more than the 20 wanted (256 px take little time)"),
        (4, (640, 480), False, {"short": 384, "long": 512}, "fewer than the 20 wanted (512 is the most for a CPU"),
        (4, (200, 100), False, {"short": 96, "long": 192}, "fewer than the 20 wanted (the images have no more)"),
        (200, (640, 480), True, {"short": 600, "long": 800}, "800 px take little time"),
        (20, (2000, 3000), True, {"short": 896, "long": 1344}, "1344 is the most for a GPU"),
    ],
)  # fmt: skip
def test_the_image_size_follows_the_smallest_objects(tmp_path, side, size, gpu, expected, why):
    data = data_of(tmp_path, squares(100, side, size), [0] * 100, size)
    chosen, reason = choose_image_size(data, gpu)
    assert chosen == expected
    assert why in reason


def faces(tmp_path, side):
    """Boxes of very different sizes, half of them below `side` px, in photographs of 400x300."""
    rng = np.random.default_rng(0)
    sides = np.exp(rng.normal(np.log(side), 0.7, (300, 1)).clip(0, 5.3)) * [1, 1]
    boxes = np.hstack([rng.uniform(0, 1, (300, 2)) * (np.array([400, 300]) - sides).clip(1), sides])
    return data_of(tmp_path, boxes, [0] * 300, size=(400, 300))


@pytest.mark.parametrize(("side", "enlarged"), [(14, True), (60, False)])
def test_small_images_are_enlarged_where_that_lifts_reach(tmp_path, side, enlarged):
    train = faces(tmp_path, side)
    plain = recipe("datasets/my.yaml", train, gpu=False)
    config = to_config(plain)
    setting = enlarge(train, config, measure_reach(train, config), gpu=False)
    assert (setting is not None) == enlarged
    if setting:
        assert 400 < setting.value["long"] <= 640 and "enlarged from 400 px: anchors reach" in setting.reason
        larger = {s.path: s.value for s in recipe("datasets/my.yaml", train, False, setting)}
        assert larger["data.image_size"] == setting.value
        assert larger["train.epochs"] == config.train.epochs  # more time, not fewer steps


def test_images_with_pixels_to_spare_are_not_enlarged(tmp_path):
    train = data_of(tmp_path, squares(100, 4), [0] * 100, size=(2000, 1500))
    config = to_config(recipe("datasets/my.yaml", train, gpu=False))
    assert enlarge(train, config, measure_reach(train, config), gpu=False) is None


@pytest.mark.parametrize(("side", "named"), [(7, True), (60, False)])
def test_a_finer_level_is_named_where_it_reaches_small_objects(tmp_path, side, named):
    """The written config with what the hint names reaches what the hint says."""
    train = data_of(tmp_path, squares(300, side, (480, 360)), [0] * 300, size=(480, 360))
    settings = recipe("datasets/my.yaml", train, gpu=False)
    config = to_config(settings)
    reach = measure_reach(train, config)
    hints = finest_level(train, config, reach)
    classes = describe_classes(train, config)
    advice = advise(settings, train, None, classes=classes, reach=reach, bad_boxes={}, hints=hints)
    assert ("model.neck.finest=p2" in "".join(advice.lines())) == bool(hints) == named
    assert advice.config.model.neck.finest == "p3"  # named, not set
    if named:
        write_config(advice.settings, "my.yaml", tmp_path / "my.config.yaml")
        (changes,) = re.findall("with (.*), a cell every", hints[0])
        finer = load_config(tmp_path / "my.config.yaml", changes.split(" and "))
        now, then = (f"{measure_reach(train, one).ceiling:.0%}" for one in (advice.config, finer))
        assert f"anchors reach {then} of the objects instead of {now}," in hints[0]


def test_a_camera_along_the_ground_has_an_up_and_a_down(tmp_path):
    boxes = squares(2000, 40)
    assert no_up_and_down(data_of(tmp_path, boxes, [0] * 2000)).startswith("up and down look alike")
    assert no_up_and_down(data_of(tmp_path, boxes[:900], [0] * 900)) is None  # too few to tell
    tall, lower, nearer = boxes.copy(), boxes.copy(), boxes.copy()
    tall[:, 3] *= 1.3
    lower[:, 1] = 480 - (480 - lower[:, 1]) * 0.7
    nearer[:, 2:] *= (0.8 + nearer[:, 1] / 480)[:, None]
    for upright in (tall, lower, nearer):
        assert no_up_and_down(data_of(tmp_path, upright, [0] * 2000)) is None


def test_settings_as_a_tree_and_as_lines(cells):
    advice = advice_of(cells)
    tree = to_tree(advice.settings)
    assert [entry["name"] for entry in tree["augment"]["transforms"]][:2] == ["HorizontalFlip", "VerticalFlip"]
    assert "  dataset: datasets/my.yaml # the dataset examined; relative to the folder that training is started in" in (
        config_lines(advice.settings)
    )
