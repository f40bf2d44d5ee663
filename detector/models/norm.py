"""Normalisation layers, by name, for the backbone and the head."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import Tensor, nn

from detector.utils.errors import InputError


class FrozenBatchNorm2d(torchvision.ops.FrozenBatchNorm2d):
    """Batch norm whose statistics and affine parameters are buffers; state dict as torchvision's.

    (N, C, ...) → the same shape and dtype; in float32 equal to torchvision's to the last bit. torchvision's own
    forward promotes a bfloat16 activation to float32, so that every layer after it moves twice the bytes.
    """

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        scale = (self.weight * (self.running_var + self.eps).rsqrt()).view(shape)
        bias = self.bias.view(shape) - self.running_mean.view(shape) * scale
        if x.dtype == torch.float32:
            return x * scale + bias
        return torch.addcmul(bias.to(x.dtype), x, scale.to(x.dtype))


class FrozenBatchNormAct2d(FrozenBatchNorm2d):
    """timm's BatchNormAct2d, frozen: after the norm come its `drop` and its `act`."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__(norm.num_features, eps=norm.eps)
        self.drop = norm.drop
        self.act = norm.act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def freeze_batch_norms(network: nn.Module) -> None:
    """Put a frozen norm in the place of every batch norm below `network`, which keeps its names and state."""
    for name, child in network.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            has_act = hasattr(child, "act")
            frozen = FrozenBatchNormAct2d(child) if has_act else FrozenBatchNorm2d(child.num_features, eps=child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(network, name, frozen)
        else:
            freeze_batch_norms(child)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm(32), or the greatest power of two below that divides `channels`."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def norm_layer(name: str, *, eps: float) -> Callable[[int], nn.Module]:
    """channels → layer, for name in frozen, batch, sync, group. `eps` is what batch statistics are used with.

    Raises InputError on another name.
    """
    layers = {
        "frozen": partial(FrozenBatchNorm2d, eps=eps),
        "batch": partial(nn.BatchNorm2d, eps=eps),
        "sync": partial(nn.SyncBatchNorm, eps=eps),
        "group": group_norm,
    }
    if name not in layers:
        raise InputError(f"unknown norm {name!r}; valid: {', '.join(layers)}")
    return layers[name]
