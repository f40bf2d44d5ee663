"""Box regression losses of positive anchors, summed. To add one: a function here, and a line in BOX_LOSSES."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from detector.ops.boxes import decode, encode
from detector.utils.nearest import lookup

# deltas (P, 4) float32 predicted, anchors and boxes (P, 4) xyxy pixels, beta → the loss of each, (P,)
BoxLoss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def smooth_l1(deltas: Tensor, anchors: Tensor, boxes: Tensor, beta: float) -> Tensor:
    """Compares deltas: quadratic below `beta`, linear above; L1 if beta is 0 (Fast R-CNN, arXiv 1504.08083, eq. 3)."""
    return F.smooth_l1_loss(deltas, encode(boxes, anchors), beta=beta, reduction="none").sum(dim=1)


def on_decoded_boxes(loss: Callable[..., Tensor]) -> BoxLoss:
    """A box loss from one of torchvision's, which compare boxes (P, 4) xyxy. It has no `beta`."""
    return lambda deltas, anchors, boxes, beta: loss(decode(deltas, anchors), boxes, reduction="none")


BOX_LOSSES: dict[str, BoxLoss] = {  # loss.box → the loss
    "smooth_l1": smooth_l1,
    "giou": on_decoded_boxes(generalized_box_iou_loss),  # Rezatofighi et al., arXiv 1902.09630
    "diou": on_decoded_boxes(distance_box_iou_loss),  # Zheng et al., arXiv 1911.08287
    "ciou": on_decoded_boxes(complete_box_iou_loss),  # the same
}


def box_loss(
    deltas: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    weights: Tensor | None = None,
    *,
    name: str = "smooth_l1",
    beta: float = 0.0,
) -> Tensor:
    """Sum of the losses of P positive anchors, float32 scalar (0 for none, still with a gradient of 0).

    deltas: (P, 4) predicted. anchors, boxes: (P, 4) xyxy pixels. weights: (P,) float32 factors; None: all 1. name: an
    entry of BOX_LOSSES. beta: of smooth_l1. Raises InputError for an unknown name.
    """
    loss = lookup(BOX_LOSSES, name, "loss.box")(deltas.float(), anchors, boxes, beta)
    return (loss if weights is None else loss * weights).sum()
