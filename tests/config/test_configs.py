"""Every shipped config is valid, can be built, and says only what differs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights

from detector.config.file import load_config, validate
from detector.inference.config_check import check_config
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
        ("quickstart", 1e-3, 0.05),
        ("bccd", 5e-4, 0.05),
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
