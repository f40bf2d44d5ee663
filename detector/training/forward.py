"""The forward pass of a training step."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def forward(
    model: nn.Module, images: Tensor, targets: list[dict], device: torch.device, autocast: torch.dtype | None
) -> dict:
    """The model's outputs for a batch, in the precision of the training.

    images: (N, 3, H, W) uint8. targets: N dicts with `size` (h, w). autocast: None is float32.
    """
    with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        return model(images.to(device, non_blocking=True), [target["size"] for target in targets])
