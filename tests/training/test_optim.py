"""Parameter groups and the learning-rate schedule."""

import pytest
import torch
from torch import nn

from detector.config.schema import TrainConfig
from detector.training.optim import build_ema, build_optimizer, build_schedule, lr_factor, scaled_lr


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.backbone.fpn = nn.Conv2d(4, 4, 1)
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)


def test_lr_scales_with_the_effective_batch():
    assert scaled_lr(TrainConfig(lr=0.01, batch_size=8, accumulate=2)) == 0.01
    assert scaled_lr(TrainConfig(lr=0.01, batch_size=2)) == pytest.approx(0.00125)


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
        id(fpn.weight): (0.1, 0.5),
        id(fpn.bias): (0.1, 0.0),
    }


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
