"""Which parameters have gradients in which epoch, and what a frozen part keeps."""

import math

import pytest
import torch
from torch import nn

from detector.config.model import ModelConfig
from detector.models import freeze
from detector.models.build import build_model
from detector.utils.errors import InputError


def small_model(**backbone):
    settings = {
        "backbone": {"name": "resnet18", "weights": None, "norm": "batch", **backbone},
        "neck": {"channels": 8},
        "head": {"width": 8, "depth": 1},
    }
    return build_model(ModelConfig.model_validate(settings), num_classes=2)


def trained(model: nn.Module, root: str) -> set[bool]:
    return {p.requires_grad for name, p in model.named_parameters() if name.startswith(root)}


def test_parts_by_epoch():
    model = small_model()
    frozen, later = ["backbone", "head.regression_head"], {"backbone.layer4": 2, "backbone.layer3": 4}
    for epoch, layer3, layer4 in ((1, False, False), (2, False, True), (3, False, True), (math.inf, True, True)):
        freeze.set_frozen(model, frozen, later, epoch=epoch)
        assert trained(model, "backbone.body.layer3") == {layer3}
        assert trained(model, "backbone.body.layer4") == {layer4}
        assert trained(model, "backbone.body.conv1") | trained(model, "backbone.body.layer2") == {False}
        assert trained(model, "backbone.fpn") | trained(model, "head.classification_head") == {True}
        assert trained(model, "head.regression_head") == {False}


def test_a_frozen_part_keeps_its_statistics_and_costs_no_gradient():
    model = small_model()
    freeze.set_frozen(model, ["backbone.stem", "backbone.layer1"], {}, epoch=1)
    model.train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))["logits"].sum().backward()
    for name, parameter in model.named_parameters():
        early = name.startswith(("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1"))
        assert (parameter.grad is None) == (early or "regression" in name), name
    moved = {n for n, buffer in model.named_buffers() if not torch.equal(buffer, before[n])}
    assert all(n.startswith(("backbone.body.layer2", "backbone.body.layer3", "backbone.body.layer4")) for n in moved)
    assert moved
    # nothing before layer2 is kept for the backward pass
    assert not model.body.layer1(torch.zeros(1, 64, 8, 8)).requires_grad

    freeze.set_frozen(model, ["backbone.stem", "backbone.layer1"], {"backbone.layer1": 2}, epoch=2)
    model.train()
    assert model.body.layer1.training and not model.body.bn1.training


@pytest.mark.parametrize("name, expected", [("resnet18", ["stem", "layer1"]), ("mobilenet_v3_large", ["stem", *"123"])])
def test_what_comes_before_stride_8(name, expected):
    assert freeze.resolve(small_model(name=name), "auto", {}) == []
    settings = {"weights": "a detector's", "backbone": {"name": name, "norm": "frozen"}}
    model = build_model(ModelConfig.model_validate(settings), num_classes=2)
    frozen = freeze.resolve(model, "auto", {})
    assert frozen == [f"backbone.{stage}" for stage in expected]
    freeze.set_frozen(model, frozen, {}, epoch=1)
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert names[0] == {"resnet18": "backbone.body.layer2.0.conv1.weight"}.get(name, "backbone.body.4.block.0.0.weight")


@pytest.mark.parametrize(
    ("frozen", "later", "message"),
    [
        (["backbone.layer5"], {}, "train.freeze: .*'backbone.layer5'; did you mean 'backbone.layer"),
        (["layer1"], {}, "train.freeze: no part .* 'layer1'"),
        (["backbone.stem"], {"backbone.layer9": 2}, "train.unfreeze: .*'backbone.layer9'"),
        (["backbone.stem"], {"backbone.layer3": 2}, "backbone.layer3 is never frozen; .* backbone.stem"),
        ([], {"head": 2}, "head is never frozen; train.freeze has nothing"),
        (["backbone"], {"backbone": 2, "backbone.layer4": 3}, "backbone and backbone.layer4 overlap"),
        (["backbone", "neck", "head"], {"head": 2}, "whole detector is frozen in the first epoch"),
    ],
)
def test_errors(frozen, later, message):
    with pytest.raises(InputError, match=message):
        freeze.resolve(small_model(), frozen, later)


def test_the_neck_has_p2_in_it():
    settings = {"backbone": {"name": "resnet18", "weights": None}, "neck": {"channels": 8, "finest": "p2"}}
    model = build_model(ModelConfig.model_validate(settings), num_classes=2)
    freeze.set_frozen(model, ["neck"], {}, epoch=1)
    assert trained(model, "backbone.fpn.inner_blocks.3") | trained(model, "backbone.fpn.layer_blocks.3") == {False}
    assert trained(model, "backbone.body.layer1") == {True}


def test_a_stage_of_a_frozen_whole_and_the_whole_of_a_frozen_stage():
    freeze.resolve(small_model(), ["backbone"], {"backbone.layer3": 2})
    model = small_model()
    freeze.resolve(model, ["backbone.layer1"], {"backbone": 2})
    freeze.set_frozen(model, ["backbone.layer1"], {"backbone": 2}, epoch=2)
    assert trained(model, "backbone") == {True}


def test_the_heads_parts_are_its_modules():
    model = small_model()
    model.head.quality = nn.Conv2d(8, 9, 3)  # as a head with a new output has it
    names = [name for name in freeze.parts(model) if name.startswith(("neck", "head"))]
    towers = [f"head.{tower}" for tower in ("classification_head", "regression_head")]
    assert {"neck", "head", *towers, *(f"{tower}.conv" for tower in towers), "head.quality"} < set(names)
    freeze.set_frozen(model, ["neck", "head.quality", "head.regression_head.conv"], {}, epoch=1)
    assert trained(model, "backbone.fpn") | trained(model, "head.quality") == {False}
    assert trained(model, "head.regression_head.conv") == {False}
    assert trained(model, "head.regression_head.bbox_reg") | trained(model, "backbone.body") == {True}
