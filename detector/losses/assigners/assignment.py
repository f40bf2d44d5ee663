"""What an assigner takes and returns: for each anchor its class and its object, and perhaps a soft target."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

BACKGROUND = -1
IGNORED = -2


class Assignment(NamedTuple):
    """The class and the object of every anchor of every image, and the scores that positive anchors are to have."""

    classes: Tensor  # (N, R) int64: 0..K-1, BACKGROUND or IGNORED
    objects: Tensor  # (N, R) int64: index of the anchor's object in `boxes`, where the anchor is positive; else any
    boxes: Tensor  # (N, M, 4) float32 xyxy pixels: the objects of each image, padded to the same number M
    scores: Tensor | None = None  # (N, R) float32 in 0..1: the soft target of each positive anchor; None: all 1


class Assigner(Protocol):
    """Decides which anchors are positive, for which objects."""

    def __call__(self, outputs: dict[str, Any], targets: list[dict[str, Any]]) -> Assignment:
        """outputs: the model's: logits (N, R, K), deltas (N, R, 4), anchors (R, 4) xyxy pixels, anchors_per_level (one
        int for each level), anchors_per_cell (an int). targets: N dicts with boxes (M_i, 4) xyxy pixels and labels
        (M_i,) int64.
        """
        ...


def pad_objects(targets: list[dict[str, Any]], device: torch.device) -> tuple[Tensor, Tensor]:
    """The objects of N images as boxes (N, M, 4) and labels (N, M), on `device`.

    M is the largest number of objects in an image, at least 1. Padding has the label BACKGROUND.
    """
    boxes = pad_sequence([t["boxes"] for t in targets], batch_first=True)
    labels = pad_sequence([t["labels"] for t in targets], batch_first=True, padding_value=BACKGROUND)
    if labels.shape[1] == 0:
        boxes, labels = F.pad(boxes, (0, 0, 0, 1)), F.pad(labels, (0, 1), value=BACKGROUND)
    return boxes.to(device, non_blocking=True), labels.to(device, non_blocking=True)
