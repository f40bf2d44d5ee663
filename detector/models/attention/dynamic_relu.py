"""Dynamic ReLU: an activation whose two lines are computed from the whole feature map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REDUCTION = 4  # channels of the map, for each of the hidden layer


class DynamicReLU(nn.Module):
    """(N, C, h, w) → the same shape: max(a1 x + b1, a2 x + b2), with a and b for each image and channel.

    They are functions of the channels' means (Chen et al., arXiv 2003.10027, K = 2), in the ranges that the
    Dynamic Head's code has: a1 in 0..2, a2 in -1..1, b in -0.5..0.5. It starts as nearly relu(x).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.squeeze = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, 4 * channels)
        for layer in (self.squeeze, self.expand):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        theta = F.hardsigmoid(self.expand(F.relu(self.squeeze(x.mean((2, 3)))))) - 0.5
        a1, b1, a2, b2 = theta[:, :, None, None].chunk(4, dim=1)
        return torch.maximum(x * (1 + 2 * a1) + b1, x * (2 * a2) + b2)
