"""The feature pyramid P3..P7."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.utils.errors import InputError


class ExtraLevels(LastLevelP6P7):
    """P6 and P7; on a CPU in the precision of their weights, whatever autocast says.

    In bfloat16, torch's CPU convolutions (2.15, oneDNN) give a wrong weight gradient, inf or nan, for a 3x3 kernel of
    stride 2 on an input 1 pixel wide: P7's, for images up to 64 px. These two levels cost next to nothing.
    """

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        if p[-1].device.type != "cpu":
            return super().forward(p, c, names)
        with torch.autocast("cpu", enabled=False):
            weights = self.p6.weight.dtype
            levels, names = super().forward([*p[:-1], p[-1].to(weights)], [*c[:-1], c[-1].to(weights)], names)
        return [*p, *levels[len(p) :]], names


def build_fpn(in_channels: list[int], *, channels: int, extra_levels: str) -> FeaturePyramidNetwork:
    """C3, C4, C5 (a dict, as Backbone returns it) → dict of P3..P7, each (N, channels, h, w), finest first.

    in_channels: of C3, C4, C5. P6 is a 3x3 stride 2 convolution of P5 (extra_levels "p5": torchvision's v1)
    or of C5 ("c5": the paper, torchvision's v2), P7 one of relu(P6).
    FPN: arXiv 1612.03144; P6 and P7: arXiv 1708.02002.
    Raises InputError on other extra_levels.
    """
    sources = {"p5": channels, "c5": in_channels[-1]}
    if extra_levels not in sources:
        raise InputError(f"unknown extra_levels {extra_levels!r}; valid: {', '.join(sources)}")
    extra_blocks = ExtraLevels(sources[extra_levels], channels)
    # torchvision guesses this from the channels, wrongly where C5 has as many as the pyramid.
    extra_blocks.use_P5 = extra_levels == "p5"
    return FeaturePyramidNetwork(in_channels, channels, extra_blocks=extra_blocks)
