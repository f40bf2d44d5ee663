"""Box codec and IoU: pure functions on tensors whose last dimension is a box, xyxy (x1, y1, x2, y2) in pixels.

The codec broadcasts leading dimensions and computes in float32 at least (float64 stays float64): bfloat16 has 8
significant bits, so at pixel 1000 its steps are 4 pixels wide.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A prediction enlarges its anchor at most 1000/16 times, so exp() stays finite (as Detectron, torchvision).
MAX_LOG_SCALE = math.log(1000.0 / 16)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """The deltas that turn `anchors` into `boxes`: the regression targets.

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


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(...): IoU of each box with the other box in the same place.

    boxes, others: (..., 4) xyxy of positive area; leading dimensions broadcast.
    """
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) + (others[..., 2:] - others[..., :2]).prod(dim=-1)
    return intersection / (areas - intersection)


def iou_with_anchors(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(N, M, R): IoU of the boxes (N, M, 4) of N images with every anchor (R, 4); NaN where both areas are 0.

    Works coordinate by coordinate, so that every operation runs over contiguous memory. The operations have the order
    of torchvision.ops.box_iou, so ties and thresholds fall alike.
    """
    x1, y1, x2, y2 = boxes[..., None].unbind(dim=2)  # each (N, M, 1)
    ax1, ay1, ax2, ay2 = anchors.t().contiguous()  # each (R,)
    width = (torch.minimum(x2, ax2) - torch.maximum(x1, ax1)).clamp_(min=0)
    height = (torch.minimum(y2, ay2) - torch.maximum(y1, ay1)).clamp_(min=0)
    intersection = width.mul_(height)
    union = ((x2 - x1) * (y2 - y1) + (ax2 - ax1) * (ay2 - ay1)).sub_(intersection)
    return intersection.div_(union)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    size = bottom_right - top_left
    return top_left + 0.5 * size, size


def _at_least_float32(boxes: Tensor) -> Tensor:
    return boxes.to(torch.promote_types(boxes.dtype, torch.float32))
