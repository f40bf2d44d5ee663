"""The feature pyramid network with PANet's second path, from fine to coarse."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from detector.config.model import NeckConfig
from detector.models.necks.fpn import ExtraLevels, pyramid


class BottomUpPath(ExtraLevels):
    """The levels of an FPN, finest first → N3..N5 (or N2..N5), and P6 and P7 from N5 or C5.

    M3 = P3, M4 = P4 + downsample(M3), M5 = P5 + downsample(M4); N3 = P3, N4 = fuse(M4), N5 = fuse(M5). Both are 3x3
    convolutions, the first of stride 2. As in mmdetection's PAFPN; the paper (arXiv 1803.01534, section 3.1) goes on
    from N4 instead of M4, with a ReLU after each convolution.

    Unlike there, the convolutions start so that N = P: a detector that was trained with an FPN keeps its outputs.

    from_p2: whether the FPN begins with P2. The step from P2 to P3 then comes last, at index 2, so that weights of a
    path from P3 fit by name.
    """

    def __init__(self, c5_channels: int, channels: int, *, from_p5: bool, from_p2: bool) -> None:
        super().__init__(c5_channels, channels, from_p5=from_p5)
        self.from_p2 = from_p2
        steps = 3 if from_p2 else 2
        downsample = [nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(steps)]
        fuse = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(steps)]
        self.downsample, self.fuse = nn.ModuleList(downsample), nn.ModuleList(fuse)
        for parameter in (*self.downsample.parameters(), *self.fuse.parameters()):
            nn.init.zeros_(parameter)
        for convolution in fuse:
            nn.init.dirac_(convolution.weight)

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        merged, n = p[0], [p[0]]
        first = -1 if self.from_p2 else 0  # the step from P2 to P3 is the last in the lists, then come 0 and 1
        for step, level in enumerate(p[1:], start=first):
            merged = level + self.downsample[step](merged)
            n.append(self.fuse[step](merged))
        return super().forward(n, c, names)


def build_pafpn(in_channels: list[int], config: NeckConfig) -> FeaturePyramidNetwork:
    """The path aggregation network of arXiv 1803.01534 on torchvision's FPN, whose parameters keep their names.

    See `build_neck` for what goes in and out, `build_fpn` for P6 and P7.
    """
    from_p5, from_p2 = config.extra_levels == "p5", config.finest == "p2"
    extra = BottomUpPath(in_channels[-1], config.channels, from_p5=from_p5, from_p2=from_p2)
    return pyramid(in_channels, config, extra)
