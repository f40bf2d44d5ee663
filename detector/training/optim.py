"""Parameter groups, optimizer, learning-rate schedule, moving average of the weights."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from detector.config.train import TrainConfig
from detector.models.retinanet import RetinaNet

Tensors = tuple[Tensor, ...] | list[Tensor]

REFERENCE_BATCH = 16  # images per step that `train.lr` is given for
BACKBONE = "backbone.body."  # how the names of its parameters begin


class Rates(NamedTuple):
    """`train.lr` and `train.weight_decay`."""

    lr: float
    """For REFERENCE_BATCH images per step."""
    weight_decay: float


# What an optimizer gets where the configuration gives no number. sgd: detectron2's RetinaNet. adamw: mmdetection's
# RetinaNet with AdamW (configs/resnet_strikes_back) and torchvision's retinanet_resnet50_fpn_v2.
OWN_RATES = {"sgd": Rates(0.01, 1e-4), "adamw": Rates(1e-4, 0.05)}


def rates(config: TrainConfig) -> Rates:
    """What the configuration gives, or the optimizer's own."""
    own = OWN_RATES[config.optimizer]
    return Rates(
        own.lr if config.lr is None else config.lr,
        own.weight_decay if config.weight_decay is None else config.weight_decay,
    )


def scaled_lr(config: TrainConfig) -> float:
    """The learning rate for the images of a step.

    SGD's is proportional to their number: Goyal et al., Accurate, Large Minibatch SGD, arXiv 1706.02677, section 2.1.
    AdamW's to its square root: Malladi et al., On the SDEs and Scaling Rules for Adaptive Gradient Algorithms, arXiv
    2205.10287. Their rule also moves Adam's betas; here these stay, as in the published recipes.
    """
    times = config.images_per_step / REFERENCE_BATCH
    return rates(config).lr * (math.sqrt(times) if config.optimizer == "adamw" else times)


def build_optimizer(model: RetinaNet, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of all parameters that require a gradient."""
    lr = scaled_lr(config)
    groups = parameter_groups(
        model, lr=lr, weight_decay=rates(config).weight_decay, backbone_lr_factor=config.backbone_lr_factor
    )
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    # torch's fused SGD fails where some parameters get their momentum later than others, as unfreezing makes them
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, fused=not config.unfreeze)


def parameter_groups(model: RetinaNet, *, lr: float, weight_decay: float, backbone_lr_factor: float) -> list[dict]:
    """Up to four groups: {backbone, rest} x {decayed, not}. Norms, biases and `Backbone.undecayed` are not decayed."""
    undecayed = {f"{BACKBONE}{name}" for name in model.body.undecayed}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith(BACKBONE), parameter.ndim > 1 and name not in undecayed)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * (backbone_lr_factor if in_backbone else 1.0),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (in_backbone, decayed), parameters in groups.items()
    ]


def build_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, total_steps: int) -> LambdaLR:
    """Warm-up, then `train.schedule`, over `total_steps` optimizer steps."""
    return LambdaLR(optimizer, lr_factors(config, total_steps))


def set_lr(schedule: LambdaLR) -> None:
    """Set the learning rates of the next step. A loaded optimizer has those of the schedule it was saved under."""
    factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    for group, base, factor in zip(schedule.optimizer.param_groups, schedule.base_lrs, factors, strict=True):
        group["lr"] = base * factor


def lr_factors(config: TrainConfig, total_steps: int) -> Callable[[int], float]:
    """Optimizer step (from 0) → its learning rate as a fraction of the base rate, in a training of `total_steps`."""
    warmup = min(config.warmup_steps, total_steps // 10)
    return lambda step: lr_factor(step, total_steps, warmup, config.schedule, config.milestones)


def lr_factor(step: int, total_steps: int, warmup: int, schedule: str, milestones: list[float]) -> float:
    """Learning rate of optimizer step `step` (from 0) as a fraction of the base rate."""
    rise = 0.001 + 0.999 * step / warmup if step < warmup else 1.0
    if schedule == "step":
        return rise * 0.1 ** bisect_right([round(m * total_steps) for m in sorted(milestones)], step)
    if schedule == "cosine":
        return rise * 0.5 * (1 + math.cos(math.pi * step / total_steps))
    return rise


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights and of the norms' statistics; `.module` is the averaged model.

    Update n (from 0, which copies) uses a decay of min(decay, (1 + n) / (10 + n)), the warm-up of
    tf.train.ExponentialMovingAverage: in a short training the average covers about the last tenth of the steps.
    """

    def average(averages: Tensors, weights: Tensors, n: Tensor | int) -> None:
        update = get_ema_multi_avg_fn(min(decay, (1 + int(n)) / (10 + int(n))))
        update(averages, weights, n)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
