"""Parameter groups, optimizer, learning-rate schedule, moving average of the weights."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from detector.config.schema import TrainConfig

Tensors = tuple[Tensor, ...] | list[Tensor]

REFERENCE_BATCH = 16  # images per step that `train.lr` is given for


def scaled_lr(config: TrainConfig) -> float:
    """The learning rate for the images of a step. Linear scaling rule: Goyal et al., Accurate, Large Minibatch SGD,
    arXiv 1706.02677, section 2.1."""
    return config.lr * config.images_per_step / REFERENCE_BATCH


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of all parameters that require a gradient."""
    lr = scaled_lr(config)
    groups = parameter_groups(
        model, lr=lr, weight_decay=config.weight_decay, backbone_lr_factor=config.backbone_lr_factor
    )
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    # torch's fused SGD fails where some parameters get their momentum later than others, as unfreezing makes them
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, fused=not config.unfreeze)


def parameter_groups(model: nn.Module, *, lr: float, weight_decay: float, backbone_lr_factor: float) -> list[dict]:
    """Up to four groups: {backbone, rest} x {weights, norms and biases}. Norms and biases are never decayed."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith("backbone.body."), parameter.ndim > 1)
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
