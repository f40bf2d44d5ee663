"""A light attention over scales, space and channels, without deformable convolution, for training on a CPU.

This project's own design, made of published parts: what the Dynamic Head attends to (arXiv 2106.08322), gated by one
linear layer of the channels' means (effective squeeze-excitation: CenterMask, arXiv 1911.06667), and over space by a
depthwise and a pointwise convolution (as in the Visual Attention Network, arXiv 2202.09741).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class LightBlock(nn.Module):
    """Levels, finest first → levels of the same shapes.

    scale: y = x + s finer + t coarser, neighbours resized to x; s and t in -1..1, for each image and level;
    space: y times a gate in 0..2 for each cell and channel, from a depthwise 5x5 and a 1x1 convolution of y;
    task: times a gate in 0..2 for each channel, of each image and level.
    s, t and the gate of the channels come from the means of x's channels. All levels share the weights. The layers
    before a gate start at 0, so that the block starts as the identity, exactly: a detector that was trained without it
    keeps its outputs.
    """

    starts_as_identity = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.context = nn.Linear(channels, 2 + channels)
        self.around = nn.Conv2d(channels, channels, kernel_size=5, padding=2, groups=channels)
        self.space = nn.Conv2d(channels, channels, kernel_size=1)
        for parameter in (*self.context.parameters(), *self.space.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [self._refined(levels, i) for i in range(len(levels))]

    def _refined(self, levels: Sequence[Tensor], i: int) -> Tensor:
        x = levels[i]
        gates = F.hardsigmoid(self.context(x.mean((2, 3))))[:, :, None, None]
        finer, coarser, channels = gates.split((1, 1, x.shape[1]), dim=1)
        y = x
        if i > 0:
            y = y + (2 * finer - 1) * F.avg_pool2d(levels[i - 1], 2, ceil_mode=True).to(x.dtype)
        if i + 1 < len(levels):
            y = y + (2 * coarser - 1) * F.interpolate(levels[i + 1], size=x.shape[-2:]).to(x.dtype)
        return y * F.hardsigmoid(self.space(self.around(y))) * (4 * channels)
