"""Normalisation layers for the backbone and the head."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn


class FrozenBatchNorm2d(torchvision.ops.FrozenBatchNorm2d):
    """Batch norm whose statistics and affine parameters are buffers; its state dict is torchvision's.

    (N, C, ...) → the same shape and dtype; in float32 equal to torchvision's to the last bit. torchvision's own
    forward promotes a bfloat16 activation to float32, which doubles the memory traffic of every later layer.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        scale = (self.weight * (self.running_var + self.eps).rsqrt()).view(shape)
        bias = self.bias.view(shape) - self.running_mean.view(shape) * scale
        if x.dtype == torch.float32:
            return x * scale + bias
        return torch.addcmul(bias.to(x.dtype), x, scale.to(x.dtype))


class FrozenBatchNormAct2d(FrozenBatchNorm2d):
    """timm's BatchNormAct2d, frozen: the norm, then its `drop` and its `act`."""

    def __init__(self, norm: Any) -> None:  # timm may not be installed
        super().__init__(norm.num_features, eps=norm.eps)
        self.drop = norm.drop
        self.act = norm.act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def freeze_batch_norms(network: nn.Module) -> None:
    """Replace every batch norm below `network` by a frozen one with the same name and state."""
    for name, child in network.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            frozen = (
                FrozenBatchNormAct2d(child)
                if hasattr(child, "act")
                else FrozenBatchNorm2d(child.num_features, eps=child.eps)
            )
            frozen.load_state_dict(child.state_dict())
            setattr(network, name, frozen)
        else:
            freeze_batch_norms(child)


class GroupNorm(nn.GroupNorm):
    """torch's, which refuses a group of a single value: an image alone, a channel a group, a level of 1x1.

    Here its result is the bias, as torch has it where the image is not alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def group_norm(channels: int, groups: int = 32) -> nn.GroupNorm:
    """GroupNorm(groups), a power of two, or the greatest below that divides `channels`."""
    return GroupNorm(math.gcd(groups, channels), channels)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W), at each position."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class FeatureNorms(nn.ModuleDict):
    """A LayerNorm for each feature that goes into the neck: c5 for the last, c4 for the one before, and so on.

    channels: of the features, the finest first. Takes and returns a dict of them, each (N, C, h, w).
    """

    def __init__(self, channels: list[int], eps: float) -> None:
        finest = 6 - len(channels)
        super().__init__({f"c{finest + i}": LayerNorm2d(count, eps=eps) for i, count in enumerate(channels)})

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: norm(x) for norm, (name, x) in zip(self.values(), features.items(), strict=True)}


def norm_layer(name: str, *, eps: float) -> Callable[[int], nn.Module]:
    """The backbone's norm that `model.backbone.norm` names, as a function of the channels.

    eps: what is added to a batch variance; group norm keeps torch's.
    """
    layers: dict[str, Callable[[int], nn.Module]] = {
        "frozen": partial(FrozenBatchNorm2d, eps=eps),
        "batch": partial(nn.BatchNorm2d, eps=eps),
        "sync": partial(nn.SyncBatchNorm, eps=eps),
        "group": group_norm,
    }
    return layers[name]
