"""Which anchor answers for which object: max-IoU assignment (Faster R-CNN section 3.1.2, RetinaNet section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.losses.assigners.assignment import BACKGROUND, IGNORED, Assignment, pad_objects

CPU_CHUNK = 1 << 18  # IoU values at a time: temporaries stay in cache
GPU_CHUNK = 1 << 26  # IoU values at a time: 256 MB a temporary, however many objects an image holds


class MaxIoUAssigner:
    """An anchor takes the object it overlaps most: positive from `positive_iou`, background below `negative_iou`,
    ignored in between. With `low_quality`, the anchors that overlap some object best are positive too, for the
    object which they themselves overlap most (torchvision's Matcher), as long as they overlap it at all.
    """

    def __init__(self, *, positive_iou: float = 0.5, negative_iou: float = 0.4, low_quality: bool = True):
        self.positive_iou, self.negative_iou, self.low_quality = positive_iou, negative_iou, low_quality

    @torch.no_grad()
    def __call__(self, anchors: Tensor, targets: list[dict]) -> Assignment:
        """anchors: (R, 4) float32 xyxy pixels. targets: N dicts with boxes (M_i, 4) xyxy and labels (M_i,).

        The whole batch at once, on the anchors' device, without a sync.
        """
        boxes, labels = pad_objects(targets, anchors.device)
        chunk = CPU_CHUNK if anchors.device.type == "cpu" else GPU_CHUNK
        chunks = anchors.split(max(1, chunk // boxes[..., 0].numel()))

        best = [_iou(boxes, labels, part).max(dim=1) for part in chunks]
        overlap = torch.cat([b.values for b in best], dim=1)  # (N, R)
        objects = torch.cat([b.indices for b in best], dim=1)

        classes = labels.gather(1, objects)
        classes = torch.where(overlap < self.positive_iou, IGNORED, classes)
        classes = torch.where(overlap < self.negative_iou, BACKGROUND, classes)
        if self.low_quality:
            restored = self._overlap_some_object_best(boxes, labels, chunks)
            classes = torch.where(restored, labels.gather(1, objects), classes)
        return Assignment(classes, objects, boxes)

    def _overlap_some_object_best(self, boxes: Tensor, labels: Tensor, chunks: tuple[Tensor, ...]) -> Tensor:
        """(N, R) bool: anchors whose IoU with some object is that object's greatest (all of them, if tied).

        The IoUs are computed again rather than kept: kept, they would be the largest tensor of the training.
        """
        peak = torch.stack([_iou(boxes, labels, part).amax(dim=2) for part in chunks]).amax(dim=0)  # (N, M)
        peak = torch.where(peak > 0, peak, torch.inf)[..., None]  # an object that no anchor touches restores none
        return torch.cat([(_iou(boxes, labels, part) == peak).any(dim=1) for part in chunks], dim=1)


def _iou(boxes: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
    """(N, M, R) IoU of objects (N, M, 4) and anchors (R, 4), -1 for padding.

    Coordinate by coordinate, so that every operation runs over contiguous memory; the order of the operations is
    torchvision.ops.box_iou's, so that ties and thresholds fall alike.
    """
    x1, y1, x2, y2 = boxes[..., None].unbind(dim=2)  # each (N, M, 1)
    ax1, ay1, ax2, ay2 = anchors.t().contiguous()  # each (R,)
    width = (torch.minimum(x2, ax2) - torch.maximum(x1, ax1)).clamp_(min=0)
    height = (torch.minimum(y2, ay2) - torch.maximum(y1, ay1)).clamp_(min=0)
    intersection = width.mul_(height)
    union = ((x2 - x1) * (y2 - y1) + (ax2 - ax1) * (ay2 - ay1)).sub_(intersection)
    return intersection.div_(union).masked_fill_(labels[..., None] == BACKGROUND, -1.0)
