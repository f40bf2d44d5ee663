"""The feature pyramid network, with torchvision's names and initialisation."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.config.model import NeckConfig


class ExtraLevels(LastLevelP6P7):
    """P6 and P7; on a CPU in the precision of their weights, whatever autocast says.

    torch's bfloat16 CPU convolutions (2.15, oneDNN) give a wrong weight gradient, inf or nan, for a 3x3 kernel of
    stride 2 on an input 1 pixel wide: P7's, for images up to 64 px. These two levels cost next to nothing.

    c5_channels: of C5. channels: of every pyramid level. from_p5: P6 is computed from P5, else from C5.
    """

    def __init__(self, c5_channels: int, channels: int, *, from_p5: bool) -> None:
        super().__init__(channels if from_p5 else c5_channels, channels)
        # torchvision guesses this from the channels, wrongly where C5 has as many as the pyramid.
        self.use_P5 = from_p5

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        if p[-1].device.type != "cpu":
            return super().forward(p, c, names)
        with torch.autocast("cpu", enabled=False):
            weights = self.p6.weight.dtype
            levels, names = super().forward([*p[:-1], p[-1].to(weights)], [*c[:-1], c[-1].to(weights)], names)
        return [*p, *levels[len(p) :]], names


class PyramidFromP2(FeaturePyramidNetwork):
    """P2..P5 from C2..C5. P2's blocks come last, at index 3, so that weights of a pyramid from P3 fit by name.

    Takes the channels of C3, C4, C5 and C2, in this order. torchvision asks for the blocks of level 0 (C2), 1 (C3) and
    so on. All are one place earlier here, and the first is the last: Python's index -1.
    """

    def get_result_from_inner_blocks(self, x: Tensor, idx: int) -> Tensor:
        return self.inner_blocks[idx - 1](x)

    def get_result_from_layer_blocks(self, x: Tensor, idx: int) -> Tensor:
        return self.layer_blocks[idx - 1](x)


def build_fpn(in_channels: list[int], config: NeckConfig) -> FeaturePyramidNetwork:
    """The FPN of arXiv 1612.03144 with the P6 and P7 of arXiv 1708.02002; see `build_neck` for what goes in and out.

    P6 is a 3x3 convolution of stride 2 of P5 (extra_levels "p5": torchvision's v1) or of C5 ("c5": the paper,
    torchvision's v2), P7 one of relu(P6).
    """
    extra = ExtraLevels(in_channels[-1], config.channels, from_p5=config.extra_levels == "p5")
    return pyramid(in_channels, config, extra)


def pyramid(in_channels: list[int], config: NeckConfig, extra: ExtraLevels) -> FeaturePyramidNetwork:
    """torchvision's FPN, from P3 or P2 as `config` has it; `extra` goes on from its levels."""
    if config.finest == "p2":
        return PyramidFromP2([*in_channels[1:], in_channels[0]], config.channels, extra_blocks=extra)
    return FeaturePyramidNetwork(in_channels, config.channels, extra_blocks=extra)
