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

    (N, C, H, W) → the same shape and dtype; in float32 equal to torchvision's to the last bit. torchvision's own
    forward promotes a bfloat16 activation to float32, so that every layer after it moves twice the bytes.
    """

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.weight * (self.running_var + self.eps).rsqrt()).view(1, -1, 1, 1)
        bias = self.bias.view(1, -1, 1, 1) - self.running_mean.view(1, -1, 1, 1) * scale
        if x.dtype == torch.float32:
            return x * scale + bias
        return torch.addcmul(bias.to(x.dtype), x, scale.to(x.dtype))


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
