"""The feature pyramid P3..P7."""

from __future__ import annotations

from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.utils.errors import InputError


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
    extra_blocks = LastLevelP6P7(sources[extra_levels], channels)
    # torchvision guesses this from the channels, wrongly where C5 has as many as the pyramid.
    extra_blocks.use_P5 = extra_levels == "p5"
    return FeaturePyramidNetwork(in_channels, channels, extra_blocks=extra_blocks)
