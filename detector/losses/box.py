"""Box regression losses over positive anchors, summed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from detector.ops.boxes import decode, encode

IOU_LOSSES = {
    "giou": generalized_box_iou_loss,  # Rezatofighi et al., arXiv 1902.09630
    "diou": distance_box_iou_loss,  # Zheng et al., arXiv 1911.08287
    "ciou": complete_box_iou_loss,  # the same
}


def box_loss(deltas: Tensor, anchors: Tensor, boxes: Tensor, *, kind: str = "smooth_l1", beta: float = 0.0) -> Tensor:
    """Sum of the losses of P positive anchors, float32 scalar (0 for none, still with a gradient of 0).

    deltas: (P, 4) predicted. anchors, boxes: (P, 4) xyxy pixels. kind: smooth_l1 (on deltas, quadratic below
    `beta`, L1 if beta is 0; Fast R-CNN eq. 3) or giou, diou, ciou (on decoded boxes).
    """
    deltas = deltas.float()
    if kind == "smooth_l1":
        return F.smooth_l1_loss(deltas, encode(boxes, anchors), beta=beta, reduction="sum")
    if kind not in IOU_LOSSES:
        raise ValueError(f"unknown box loss {kind!r}; one of smooth_l1, {', '.join(IOU_LOSSES)}")
    return IOU_LOSSES[kind](decode(deltas, anchors), boxes, reduction="sum")


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(P,): IoU of each box with the other one in its place. boxes, others: (P, 4) xyxy, of positive area."""
    corner, opposite = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    intersection = (opposite - corner).clamp(min=0).prod(dim=1)
    areas = sum((b[:, 2:] - b[:, :2]).prod(dim=1) for b in (boxes, others))
    return intersection / (areas - intersection)
