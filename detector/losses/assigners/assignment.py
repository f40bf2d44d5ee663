"""What every assigner returns: for each anchor its class and its object."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

BACKGROUND = -1


IGNORED = -2


class Assignment(NamedTuple):
    """For every anchor of every image its class and its object."""

    classes: Tensor  # (N, R) int64: 0..K-1, BACKGROUND or IGNORED
    objects: Tensor  # (N, R) int64: index of the best-overlapping object in `boxes`
    boxes: Tensor  # (N, M, 4) float32 xyxy pixels: the objects of each image, padded to the same number M


def pad_objects(targets: list[dict], device: torch.device) -> tuple[Tensor, Tensor]:
    """Objects of N images as boxes (N, M, 4) and labels (N, M), M the most of any image, at least 1; padding: -1."""
    boxes = pad_sequence([t["boxes"] for t in targets], batch_first=True)
    labels = pad_sequence([t["labels"] for t in targets], batch_first=True, padding_value=BACKGROUND)
    if labels.shape[1] == 0:
        boxes, labels = F.pad(boxes, (0, 0, 0, 1)), F.pad(labels, (0, 1), value=BACKGROUND)
    return boxes.to(device, non_blocking=True), labels.to(device, non_blocking=True)
