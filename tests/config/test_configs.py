"""Every shipped config is valid, can be built, says only what differs, and is the recipe of its source."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights

from detector.config.data import ShortLong
from detector.config.file import load_config, validate
from detector.data.transforms import evaluated
from detector.inference.config_check import check_config
from detector.models import freeze
from detector.models.build import build_without_memory
from detector.training.optim import rates, scaled_lr

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
every_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


@every_config
def test_a_config_loads_and_its_dataset_is_described(path):
    config = load_config(path)
    check_config(config)
    assert (path.parents[1] / config.data.dataset).is_file()
    assert config.output_dir == f"runs/{path.stem}"


@every_config
def test_a_config_says_only_what_differs(path):
    """From its base, if it has one; else from the defaults, but for a line whose comment says why it repeats one."""
    assert list(repetitions(path)) == []


def repetitions(path: Path) -> Iterator[str]:
    """The settings of a file that would be the same without it, as `path:line: setting`."""
    text = path.read_text()
    tree = yaml.safe_load(text)
    base = tree.get("base")
    without = load_config(path.parent / base) if base else validate({"data": {"dataset": "none"}}, "defaults")
    values, others, lines = load_config(path).model_dump(), without.model_dump(), text.splitlines()
    for setting, line in settings(yaml.compose(text)):
        if setting == ("base",) or not same(at(values, setting), at(others, setting)):
            continue
        if base or " #" not in lines[line]:
            yield f"{path.name}:{line + 1}: {'.'.join(setting)}"


def settings(node: yaml.Node, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Each leaf of a file: its path and its line, counted from 0. A list is a leaf."""
    if isinstance(node, yaml.MappingNode) and node.value:
        for key, value in node.value:
            yield from settings(value, (*above, key.value))
    else:
        yield above, node.start_mark.line


def at(tree: Any, setting: tuple[str, ...]) -> Any:
    """The value at a path; None where a number stands in place of a section, as in `image_size`."""
    for key in setting:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and value == other


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base: base.yaml\ntrain: {lr: 0.5}", []),
        ("base: base.yaml\ntrain: {lr: 0.1}", ["my.yaml:2: train.lr"]),
        ("base: base.yaml\ntrain:\n  lr: 0.5\n  epochs: 12 # the default", ["my.yaml:4: train.epochs"]),
        ("base: base.yaml\ndata: {image_size: {short: 64, long: 96}}", ["my.yaml:2: data.image_size.short"]),
        ("base: base.yaml\ndata: {image_size: 64}", []),
        ("base: base.yaml\ntrain: {milestones: [0.667, 0.917]}", ["my.yaml:2: train.milestones"]),
        ("data: {dataset: a}\ntrain: {epochs: 12}", ["my.yaml:2: train.epochs"]),
        ("data: {dataset: a}\ntrain:\n  epochs: 12 # as published", []),
    ],
)
def test_repetitions_are_found(tmp_path, text, expected):
    base = "data: {dataset: a, image_size: {short: 64, long: 80}}\ntrain: {lr: 0.1}\n"
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "my.yaml").write_text(text)
    assert list(repetitions(tmp_path / "my.yaml")) == expected


@pytest.mark.parametrize(
    ("name", "lr", "decay"),
    [  # what a step has, which a scaling rule must not change unseen
        ("quickstart", 2e-3, 0.05),
        ("bccd", 1e-3, 0.05),
        ("aquarium", 1e-3, 0.05),
        ("finetune", 2e-4, 0.05),
        ("retinanet_r18_fpn", 4e-4, 0.05),
        ("retinanet_r50_fpn_1x_coco", 0.01, 1e-4),
        ("retinanet_r50_fpn_v2_coco", 1e-4, 0.05),
    ],
)
def test_the_rates_that_a_recipe_was_tuned_with(name, lr, decay):
    settings = load_config(FOLDER / f"{name}.yaml").train
    assert (scaled_lr(settings), rates(settings).weight_decay) == (pytest.approx(lr, rel=0.02), decay)


@every_config
def test_the_model_of_a_config_can_be_built(path):
    model = build_without_memory(load_config(path).model, num_classes=3)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(
    "name, weights",
    [("v1", RetinaNet_ResNet50_FPN_Weights.COCO_V1), ("v2", RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1)],
)
def test_torchvision_recipes_have_its_published_number_of_parameters(name, weights):
    config = load_config(FOLDER / f"retinanet_r50_fpn_{name}_coco.yaml")
    model = build_without_memory(config.model, len(weights.meta["categories"]))
    assert sum(p.numel() for p in model.parameters()) == weights.meta["num_params"]


# What the sources say, by the names of this project's settings. The comments have theirs.
DETECTRON2 = {  # detectron2 at 02b5c4e: configs/Base-RetinaNet.yaml, configs/COCO-Detection/, config/defaults.py
    "data.image_size": {"short": [640, 800], "long": 1333},  # INPUT.MIN_SIZE_TRAIN, MAX_SIZE_TRAIN
    "data.sampling": "uniform",  # DATALOADER.SAMPLER_TRAIN TrainingSampler
    "augment.transforms": [{"name": "HorizontalFlip", "p": 0.5}],  # INPUT.RANDOM_FLIP horizontal; CROP.ENABLED False
    "augment.mosaic": 0.0,
    "augment.mixup": 0.0,
    "augment.paste": None,
    "imbalance": "none",
    "model.weights": None,
    "model.backbone.name": "resnet50",  # MODEL.RESNETS.DEPTH
    "model.backbone.norm": "frozen",  # MODEL.RESNETS.NORM FrozenBN
    "model.neck.name": "fpn",
    "model.neck.channels": 256,  # MODEL.FPN.OUT_CHANNELS
    "model.neck.extra_levels": "c5",  # modeling/backbone/fpn.py: LastLevelP6P7, in_feature res5
    "model.head.depth": 4,  # MODEL.RETINANET.NUM_CONVS
    "model.head.width": 256,
    "model.head.norm": "none",  # MODEL.RETINANET.NORM ""
    "model.head.prior": 0.01,  # MODEL.RETINANET.PRIOR_PROB
    "model.anchors.base_size": 32.0,  # MODEL.ANCHOR_GENERATOR.SIZES
    "model.anchors.scales": 3,
    "model.anchors.ratios": [0.5, 1.0, 2.0],  # MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS
    "model.postprocess.score_threshold": 0.05,  # MODEL.RETINANET.SCORE_THRESH_TEST
    "model.postprocess.topk": 1000,  # MODEL.RETINANET.TOPK_CANDIDATES_TEST
    "model.postprocess.nms_iou": 0.5,  # MODEL.RETINANET.NMS_THRESH_TEST
    "model.postprocess.nms": "by_class",
    "model.postprocess.max_detections": 100,  # TEST.DETECTIONS_PER_IMAGE
    "loss.assigner.name": "max_iou",
    "loss.assigner.negative_iou": 0.4,  # MODEL.RETINANET.IOU_THRESHOLDS
    "loss.assigner.positive_iou": 0.5,
    "loss.assigner.low_quality": True,  # modeling/meta_arch/retinanet.py: allow_low_quality_matches
    "loss.classification": "focal",
    "loss.gamma": 2.0,  # MODEL.RETINANET.FOCAL_LOSS_GAMMA
    "loss.alpha": 0.25,  # MODEL.RETINANET.FOCAL_LOSS_ALPHA
    "loss.box": "smooth_l1",  # MODEL.RETINANET.BBOX_REG_LOSS_TYPE
    "loss.beta": 0.0,  # MODEL.RETINANET.SMOOTH_L1_LOSS_BETA
    "loss.box_weight": 1.0,
    "train.epochs": 12,  # SOLVER.MAX_ITER 90000 steps of 16 of the 118287 images: 12.2
    "train.batch_size": 16,  # SOLVER.IMS_PER_BATCH
    "train.accumulate": 1,
    "train.optimizer": "sgd",
    "train.lr": 0.01,  # SOLVER.BASE_LR
    "train.momentum": 0.9,  # SOLVER.MOMENTUM
    "train.weight_decay": 1e-4,  # SOLVER.WEIGHT_DECAY; WEIGHT_DECAY_NORM 0
    "train.backbone_lr_factor": 1.0,
    "train.schedule": "step",  # SOLVER.LR_SCHEDULER_NAME WarmupMultiStepLR, GAMMA 0.1
    "train.milestones": [60 / 90, 80 / 90],  # SOLVER.STEPS of MAX_ITER
    "train.warmup_steps": 1000,  # SOLVER.WARMUP_ITERS; WARMUP_FACTOR 1 / 1000
    "train.clip_norm": None,  # SOLVER.CLIP_GRADIENTS.ENABLED False
    "train.ema": None,
}
DETECTRON2_3X = DETECTRON2 | {
    "model.backbone.name": "resnet101",
    "train.epochs": 37,  # SOLVER.MAX_ITER 270000: 36.5
    "train.milestones": [210 / 270, 250 / 270],
}
TORCHVISION_V1 = (
    DETECTRON2
    | {  # torchvision: references/detection (README.md, train.py), models/detection/retinanet.py
        "model.weights": "RetinaNet_ResNet50_FPN_Weights.COCO_V1",
        "model.backbone.weights": "IMAGENET1K_V1",  # the default of retinanet_resnet50_fpn
        "model.neck.extra_levels": "p5",  # LastLevelP6P7(256, 256)
        "data.image_size": {"short": 800, "long": 1333},  # RetinaNet's min_size and max_size
        "model.anchors.rule": "torchvision",  # its AnchorGenerator, whatever the weights
        "model.postprocess.max_detections": 300,  # RetinaNet's detections_per_img
        "train.epochs": 26,  # --epochs 26
        "train.milestones": [16 / 26, 22 / 26],  # --lr-steps 16 22
    }
)
TORCHVISION_V2 = TORCHVISION_V1 | {  # the command is in https://github.com/pytorch/vision/pull/5756
    "model.weights": "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1",
    "model.backbone.weights": "IMAGENET1K_V2",  # --weights-backbone ResNet50_Weights.IMAGENET1K_V2
    "model.backbone.norm": "sync",  # --sync-bn
    "model.neck.extra_levels": "c5",  # LastLevelP6P7(2048, 256)
    "model.head.norm": "group",
    "data.image_size": {"short": [480, 800], "long": 1333},  # --data-augmentation multiscale
    "loss.box": "giou",
    "train.optimizer": "adamw",  # --opt adamw
    "train.lr": 1e-4,  # --lr 0.0001
    "train.weight_decay": 0.05,  # --weight-decay 0.05 --norm-weight-decay 0.0
}


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("retinanet_r50_fpn_1x_coco", DETECTRON2),
        ("retinanet_r101_fpn_3x_coco", DETECTRON2_3X),
        ("retinanet_r50_fpn_v1_coco", TORCHVISION_V1),
        ("retinanet_r50_fpn_v2_coco", TORCHVISION_V2),
    ],
)
def test_a_recipe_is_that_of_its_source(name, facts):
    config = load_config(FOLDER / f"{name}.yaml")
    found = {path: at(config.model_dump(), tuple(path.split("."))) for path in facts}
    expected = facts | {"train.milestones": pytest.approx(facts["train.milestones"], abs=5e-4)}
    assert {path: (value, facts[path]) for path, value in found.items() if value != expected[path]} == {}
    assert evaluated(config.data.image_size) == ShortLong(short=800, long=1333)
    # MODEL.BACKBONE.FREEZE_AT 2; torchvision's trainable_backbone_layers 3
    model = build_without_memory(config.model, num_classes=3)
    frozen = freeze.resolve(model, config.train.freeze, config.train.unfreeze)
    assert frozen == ["backbone.stem", "backbone.layer1"]


def test_a_recipe_stays_as_published_whatever_the_defaults_become():
    """Its own lines give what the sources say wherever a better default may come; so do its headers name AMP."""
    text = (FOLDER / "retinanet_r50_fpn_1x_coco.yaml").read_text()
    given = {".".join(path) for path, _ in settings(yaml.compose(text))}
    may_change = {
        path for path in DETECTRON2 if path.startswith(("loss.", "train.")) and DETECTRON2[path] is not None
    } | {"model.backbone.norm", "model.backbone.weights", "model.neck.extra_levels"}
    assert may_change - given == {"loss.box_weight", "train.accumulate", "train.backbone_lr_factor"}  # neutral: 1
    for name in ("1x", "v1", "v2"):
        header = (FOLDER / f"retinanet_r50_fpn_{name}_coco.yaml").read_text().split("\ndata:")[0]
        assert "It trains in fp32" in header and "train.precision=fp32 is as there" in header


def test_no_line_of_a_config_is_longer_than_120():
    assert [f"{p.name}: {line}" for p in CONFIGS for line in p.read_text().splitlines() if len(line) > 120] == []


@every_config
def test_frozen_norms_have_the_weights_that_they_were_measured_with(path):
    """The published figures with frozen norms are of the first ImageNet weights; DEFAULT names the second."""
    model = load_config(path).model
    if model.backbone.norm == "frozen" and model.weights is None:
        assert model.backbone.weights == "IMAGENET1K_V1"
