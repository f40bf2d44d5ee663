"""The Dynamic Head: attention over scales, over space and over channels (Dai et al., arXiv 2106.08322)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from detector.models.attention.dynamic_relu import DynamicReLU
from detector.models.norm import group_norm

TAPS = 9  # of a 3x3 kernel, each with an offset (y, x) and a mask


class DyHeadBlock(nn.Module):
    """Levels, finest first → levels of the same shapes: the mean of what a level, its finer and its coarser neighbour
    have to say, through a dynamic ReLU.

    As in the published code, space comes before scale (the paper has them the other way round, eq. 2):
    space: a modulated deformable 3x3 convolution of each of the three, with offsets and masks from the middle level;
    scale: each result is weighted by hard_sigmoid(relu(linear(its means)));
    task: `DynamicReLU`.
    Initialised as in mmdetection: offsets start at 0 and masks at 0.5.

    One thing differs. The coarser level has fewer cells than there are offsets, and the published code then reads those
    of other cells (issue 25 of microsoft/DynamicHead). Here the offsets are resized to the coarser level as its result
    is resized back, so that each cell has its own.
    """

    starts_as_identity = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(channels, 3 * TAPS, kernel_size=3, padding=1)
        self.same = SampledConv(channels, stride=1)
        self.finer = SampledConv(channels, stride=2)
        self.coarser = SampledConv(channels, stride=1)
        self.scale = nn.Linear(channels, 1)
        self.task = DynamicReLU(channels)
        for parameter in self.offsets.parameters():
            nn.init.zeros_(parameter)
        nn.init.normal_(self.scale.weight, std=0.01)
        nn.init.zeros_(self.scale.bias)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [self._refined(levels, i) for i in range(len(levels))]

    def _refined(self, levels: Sequence[Tensor], i: int) -> Tensor:
        level = levels[i]
        sampling = self.offsets(level)
        found = [self.same(level, sampling)]
        if i > 0:
            found.append(self.finer(levels[i - 1], sampling))
        if i + 1 < len(levels):
            coarser = levels[i + 1]
            found.append(_resized(self.coarser(coarser, _resized(sampling, coarser)), level))
        return self.task(sum(self._weight(one) * one for one in found) / len(found))

    def _weight(self, found: Tensor) -> Tensor:
        """(N, C, h, w) → (N, 1, 1, 1) in 0..1."""
        return F.hardsigmoid(F.relu(self.scale(found.mean((2, 3)))))[:, :, None, None]


class SampledConv(nn.Module):
    """A deformable 3x3 convolution (DCNv2, arXiv 1811.11168) and GroupNorm(16).

    x: (N, C, h, w). sampling: (N, 27, ceil(h / stride), ceil(w / stride)), 9 offsets (y, x) in pixels of x and the
    logits of 9 masks. Returns (N, C, ...), of the size and dtype of `sampling`.
    The convolution runs in the precision of its weights, whatever autocast says: it has no bfloat16 kernel.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = DeformConv2d(channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm = group_norm(channels, groups=16)

    def forward(self, x: Tensor, sampling: Tensor) -> Tensor:
        precision = self.conv.weight.dtype
        offsets, masks = sampling.to(precision).split((2 * TAPS, TAPS), dim=1)
        return self.norm(self.conv(x.to(precision), offsets, masks.sigmoid())).to(sampling.dtype)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)
