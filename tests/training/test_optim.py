"""Parameter groups, rates, and the learning-rate schedule."""

import math
import re

import pytest
import torch
from torch import nn

from detector.config.model import BackboneConfig, HeadConfig, ModelConfig, NeckConfig
from detector.config.train import TrainConfig
from detector.models.build import build_without_memory
from detector.training.optim import (
    OWN_RATES,
    Rates,
    build_ema,
    build_optimizer,
    build_schedule,
    lr_factor,
    parameter_groups,
    rates,
    scaled_lr,
)


class Body(nn.Sequential):
    undecayed = frozenset({"2.weight"})


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.body = Body(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Embedding(5, 4))
        self.backbone.fpn = nn.Conv2d(4, 4, 1)
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)

    @property
    def body(self) -> Body:
        return self.backbone.body


def test_sgds_lr_is_proportional_to_the_images_of_a_step():
    assert scaled_lr(TrainConfig(lr=0.01, batch_size=8, accumulate=2)) == 0.01
    assert scaled_lr(TrainConfig(lr=0.01, batch_size=2)) == pytest.approx(0.00125)


def test_adamws_lr_grows_by_the_square_root():
    assert scaled_lr(TrainConfig(optimizer="adamw", lr=0.01, batch_size=16)) == 0.01
    assert scaled_lr(TrainConfig(optimizer="adamw", lr=0.01, batch_size=4)) == pytest.approx(0.005)
    assert scaled_lr(TrainConfig(optimizer="adamw", lr=0.01, batch_size=8, accumulate=8)) == pytest.approx(0.02)
    optimizer = build_optimizer(Model(), TrainConfig(optimizer="adamw", lr=0.01, batch_size=2))
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(0.01 / math.sqrt(8))] * 4


@pytest.mark.parametrize("name, lr, decay", [("sgd", 0.01, 1e-4), ("adamw", 1e-4, 0.05)])
def test_what_is_not_given_is_the_optimizers_own(name, lr, decay):
    assert rates(TrainConfig(optimizer=name)) == (lr, decay)
    assert rates(TrainConfig(optimizer=name, lr=0.3)) == (0.3, decay)
    assert rates(TrainConfig(optimizer=name, weight_decay=0.0)) == (lr, 0)
    optimizer = build_optimizer(Model(), TrainConfig(optimizer=name, batch_size=16))
    assert {group["lr"] for group in optimizer.param_groups} == {lr}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0, decay}


def test_the_reference_of_settings_has_the_same_rates():
    for field in Rates._fields:
        said = " ".join(TrainConfig.model_fields[field].description.split())
        for name, own in OWN_RATES.items():
            assert [float(n) for n in re.findall(rf"([\d.e-]+) for {name}", said)] == [getattr(own, field)]


@pytest.mark.parametrize("name, kind", [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_no_decay_on_norms_and_biases_and_the_backbone_factor(name, kind):
    model = Model()
    train = TrainConfig(optimizer=name, lr=0.1, weight_decay=0.5, backbone_lr_factor=0.1)
    optimizer = build_optimizer(model, train)
    assert isinstance(optimizer, kind)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    body, fpn = model.backbone.body, model.backbone.fpn
    assert found == {
        id(body[0].weight): (pytest.approx(0.01), 0.5),
        id(body[0].bias): (pytest.approx(0.01), 0.0),
        id(body[1].weight): (pytest.approx(0.01), 0.0),
        id(body[1].bias): (pytest.approx(0.01), 0.0),
        id(body[2].weight): (pytest.approx(0.01), 0.0),
        id(fpn.weight): (0.1, 0.5),
        id(fpn.bias): (0.1, 0.0),
    }


def test_tables_of_positions_are_not_decayed():
    """Of a Swin Transformer, its relative position biases, (2 * 7 - 1)^2 x heads, by all the wrappings of its names."""
    pytest.importorskip("timm")
    backbone = BackboneConfig(name="timm/swin_tiny_patch4_window7_224", weights=None)
    small = {"neck": NeckConfig(channels=32), "head": HeadConfig(depth=0, width=32)}
    model = build_without_memory(ModelConfig(backbone=backbone, **small), num_classes=2)
    groups = parameter_groups(model, lr=1.0, weight_decay=0.5, backbone_lr_factor=1.0)
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    tables = {name: p for name, p in model.named_parameters() if name.endswith("relative_position_bias_table")}
    assert len(tables) == 2 + 2 + 6 + 2 and all(p.shape[0] == 13**2 for p in tables.values())
    assert {decay[id(p)] for p in tables.values()} == {0}
    others = [p for name, p in model.named_parameters() if name not in tables and p.ndim > 1]
    assert {decay[id(p)] for p in others} == {0.5}


def test_step_schedule_by_hand():
    factors = [lr_factor(s, 12, warmup=2, schedule="step", milestones=[0.667, 0.917]) for s in range(12)]
    assert factors == pytest.approx([0.001, 0.5005] + [1.0] * 6 + [0.1] * 3 + [0.01])


def test_cosine_ends_at_zero_and_constant_does_not_move():
    assert lr_factor(5, 10, 0, "cosine", []) == pytest.approx(0.5)
    assert lr_factor(10, 10, 0, "cosine", []) == pytest.approx(0, abs=1e-12)
    assert lr_factor(9, 10, 0, "constant", []) == 1.0


def test_warmup_is_at_most_a_tenth_of_the_training():
    model = Model()
    train = TrainConfig(lr=1.0, warmup_steps=500, schedule="constant")
    optimizer = build_optimizer(model, train)
    schedule = build_schedule(optimizer, train, total_steps=50)
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.001, 0.2008, 0.4006, 0.6004, 0.8002, 1.0, 1.0])


def test_average_of_weights_and_statistics_with_a_rising_decay():
    model = nn.BatchNorm1d(1)
    ema = build_ema(model, decay=0.2)
    for value in (1.0, 2.0, 4.0):
        nn.init.constant_(model.weight, value)
        model.running_mean.fill_(10 * value)
        ema.update_parameters(model)
    # copied; then decays of min(0.2, 2/11) and min(0.2, 3/12)
    second = 1 * 2 / 11 + 2 * 9 / 11
    expected = second * 0.2 + 4 * 0.8
    assert ema.module.weight.item() == pytest.approx(expected)
    assert ema.module.running_mean.item() == pytest.approx(10 * expected)
    assert model.weight.item() == 4
