"""Parameter groups, optimizer, learning-rate schedule, moving average of the weights."""

from __future__ import annotations

import math
from bisect import bisect_right

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

REFERENCE_BATCH = 16  # `train.lr` is given for this many images a step


def scaled_lr(lr: float, effective_batch: int) -> float:
    """Linear scaling rule: Goyal et al., Accurate, Large Minibatch SGD, arXiv 1706.02677, section 2.1."""
    return lr * effective_batch / REFERENCE_BATCH


def parameter_groups(model: nn.Module, *, lr: float, weight_decay: float, backbone_lr_factor: float) -> list[dict]:
    """Four groups at most: {backbone, rest} x {weights, norms and biases}; the latter are never decayed."""
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


def build_optimizer(model: nn.Module, train, effective_batch: int) -> torch.optim.Optimizer:
    """The optimizer of a TrainConfig, for `effective_batch` images a step."""
    lr = scaled_lr(train.lr, effective_batch)
    groups = parameter_groups(
        model, lr=lr, weight_decay=train.weight_decay, backbone_lr_factor=train.backbone_lr_factor
    )
    if train.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    # torch's fused SGD cannot step where some momentum begins later than the rest
    return torch.optim.SGD(groups, lr=lr, momentum=train.momentum, fused=not train.unfreeze)


def build_schedule(optimizer: torch.optim.Optimizer, train, total_steps: int) -> LambdaLR:
    """Warm-up, then the schedule of a TrainConfig, over `total_steps` optimizer steps."""
    warmup = min(train.warmup_steps, total_steps // 10)
    return LambdaLR(optimizer, lambda step: lr_factor(step, total_steps, warmup, train.schedule, train.milestones))


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

    Update n (from 0; it copies) decays the average by min(decay, (1 + n) / (10 + n)), so that in a short training it
    is of about the last tenth, not of the first weights (the warm-up of tf.train.ExponentialMovingAverage).
    """

    def average(averages: list[Tensor], weights: list[Tensor], n: Tensor) -> None:
        update = get_ema_multi_avg_fn(min(decay, (1 + int(n)) / (10 + int(n))))
        update(averages, weights, n)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
