"""The head: two towers of convolutions, shared by all pyramid levels, give each anchor its class logits and box deltas.

Parameters are named and initialised as in torchvision (focal loss paper, arXiv 1708.02002, section 4.1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from detector.models.norm import group_norm


class Head(nn.Module):
    """Levels P3..P7, each (N, in_channels, h, w) → {"logits": (N, R, K), "deltas": (N, R, 4)}, finest level first.

    anchors_per_cell: A. depth: 3x3 convolutions in each tower; 0: none. width: their channels.
    norm: none, or group (GroupNorm after each convolution). prior: the score every anchor starts with.

    An entry that is added to the dict reaches the criterion and the postprocess under its name; its first dimension
    is the batch's. A module that is added can be frozen, and is counted when weights are transferred, by its name.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        anchors_per_cell: int,
        num_classes: int,
        depth: int,
        width: int,
        norm: str,
        prior: float,
    ) -> None:
        super().__init__()
        self.classification_head = ClassificationHead(
            in_channels,
            anchors_per_cell=anchors_per_cell,
            num_classes=num_classes,
            depth=depth,
            width=width,
            norm=norm,
            prior=prior,
        )
        self.regression_head = RegressionHead(
            in_channels, anchors_per_cell=anchors_per_cell, depth=depth, width=width, norm=norm
        )

    def forward(self, features: list[Tensor]) -> dict[str, Tensor]:
        return {"logits": self.classification_head(features), "deltas": self.regression_head(features)}


class ClassificationHead(nn.Module):
    """Levels → logits (N, R, K)."""

    def __init__(
        self,
        in_channels: int,
        *,
        anchors_per_cell: int,
        num_classes: int,
        depth: int,
        width: int,
        norm: str,
        prior: float,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = _tower(in_channels, depth=depth, width=width, norm=norm)
        self.cls_logits = _conv_out(width if depth else in_channels, anchors_per_cell * num_classes)
        assert self.cls_logits.bias is not None
        nn.init.constant_(self.cls_logits.bias, prior_bias(prior))

    def forward(self, features: list[Tensor]) -> Tensor:
        levels = [self.cls_logits(self.conv(feature)) for feature in features]
        return torch.cat([permute_to_N_HWA_K(level, self.num_classes) for level in levels], dim=1)


class RegressionHead(nn.Module):
    """Levels → deltas (N, R, 4), as `ops.boxes.encode` defines them."""

    def __init__(self, in_channels: int, *, anchors_per_cell: int, depth: int, width: int, norm: str) -> None:
        super().__init__()
        self.conv = _tower(in_channels, depth=depth, width=width, norm=norm)
        self.bbox_reg = _conv_out(width if depth else in_channels, anchors_per_cell * 4)

    def forward(self, features: list[Tensor]) -> Tensor:
        levels = [self.bbox_reg(self.conv(feature)) for feature in features]
        return torch.cat([permute_to_N_HWA_K(level, 4) for level in levels], dim=1)


def permute_to_N_HWA_K(level: Tensor, K: int) -> Tensor:
    """(N, A*K, H, W) → (N, H*W*A, K); a view where `level` is channels_last."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, K)


def prior_bias(prior: float) -> float:
    """The logit whose sigmoid is `prior` (focal loss paper, section 4.1)."""
    return -math.log((1 - prior) / prior)


def _tower(in_channels: int, *, depth: int, width: int, norm: str) -> nn.Sequential:
    """(N, in_channels, h, w) → (N, width, h, w)."""
    norm_layer = {"none": None, "group": group_norm}[norm]
    channels = [in_channels] + [width] * depth
    tower = nn.Sequential(
        *(Conv2dNormActivation(channels[i], channels[i + 1], norm_layer=norm_layer, inplace=True) for i in range(depth))
    )
    for layer in tower.modules():
        if isinstance(layer, nn.Conv2d):
            _initialise(layer)
    return tower


def _conv_out(in_channels: int, out_channels: int) -> nn.Conv2d:
    """The prediction of each cell."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    _initialise(conv)
    return conv


def _initialise(conv: nn.Conv2d) -> None:
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
