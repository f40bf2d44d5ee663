"""The box codec: pure functions on tensors whose last dimension is a box, xyxy (x1, y1, x2, y2) in pixels.

Leading dimensions broadcast. The codec computes in float32 whatever the precision of its inputs (float64 stays
float64): a bfloat16 has 8 significant bits, which at pixel 1000 is a step of 4 pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A prediction enlarges its anchor at most 1000/16 times, so exp() stays finite (as Detectron, torchvision).
MAX_LOG_SCALE = math.log(1000.0 / 16)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """What the regression head should predict at `anchors` to give `boxes`.

    boxes, anchors: (..., 4) xyxy, pixels, of positive width and height.
    Returns deltas (..., 4): ((x - xa) / wa, (y - ya) / ha, log(w / wa), log(h / ha)) of centres and sizes
    (Faster R-CNN, arXiv 1506.01497, equation 2), without further weights.
    """
    centre, size = _centre_and_size(_at_least_float32(boxes))
    anchor_centre, anchor_size = _centre_and_size(_at_least_float32(anchors))
    return torch.cat(((centre - anchor_centre) / anchor_size, torch.log(size / anchor_size)), dim=-1)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `encode`: deltas (..., 4) at anchors (..., 4) xyxy → boxes (..., 4) xyxy, in pixels.

    The size terms are clamped from above at log(1000 / 16); the boxes are not clipped to any image.
    """
    deltas = _at_least_float32(deltas)
    anchor_centre, anchor_size = _centre_and_size(_at_least_float32(anchors))
    centre = anchor_centre + deltas[..., :2] * anchor_size
    half_size = 0.5 * anchor_size * deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp()
    return torch.cat((centre - half_size, centre + half_size), dim=-1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    size = bottom_right - top_left
    return top_left + 0.5 * size, size


def _at_least_float32(boxes: Tensor) -> Tensor:
    return boxes.to(torch.promote_types(boxes.dtype, torch.float32))
