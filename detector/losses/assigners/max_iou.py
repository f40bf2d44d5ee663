"""Max-IoU assignment: Faster R-CNN (arXiv 1506.01497) section 3.1.2, RetinaNet (arXiv 1708.02002) section 4.1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detector.losses.assigners.assignment import BACKGROUND, IGNORED, Assignment, pad_objects
from detector.ops.boxes import iou_with_anchors

CPU_CHUNK = 1 << 18  # IoU values at a time: temporaries stay in cache
GPU_CHUNK = 1 << 26  # IoU values at a time: 256 MB for each temporary, however many objects an image holds


class MaxIoUAssigner:
    """Each anchor takes the object with which it has the greatest IoU: positive from `positive_iou`, background below
    `negative_iou`, ignored in between.

    low_quality: the anchors with an object's greatest IoU are positive too, as long as they overlap it at all. Each of
    them takes the object that it overlaps most itself, as in torchvision's Matcher.
    """

    def __init__(self, positive_iou: float = 0.5, negative_iou: float = 0.4, *, low_quality: bool = True):
        self.positive_iou, self.negative_iou, self.low_quality = positive_iou, negative_iou, low_quality

    @torch.no_grad()
    def __call__(self, outputs: dict[str, Any], targets: list[dict[str, Any]]) -> Assignment:
        """outputs: anchors (R, 4) float32 xyxy pixels. targets: N dicts with boxes (M_i, 4) xyxy and labels (M_i,).

        Does the whole batch at once, on the anchors' device, without a CPU-GPU sync.
        """
        anchors = outputs["anchors"]
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
            best_of_some_object = _best_of_some_object(boxes, labels, chunks)
            classes = torch.where(best_of_some_object, labels.gather(1, objects), classes)
        return Assignment(classes, objects, boxes)


def _best_of_some_object(boxes: Tensor, labels: Tensor, chunks: tuple[Tensor, ...]) -> Tensor:
    """(N, R) bool: anchors whose IoU with some object is that object's greatest (all of them, if tied).

    Computes the IoUs again rather than keeping them: they would be the largest tensor of the training.
    """
    peak = torch.stack([_iou(boxes, labels, part).amax(dim=2) for part in chunks]).amax(dim=0)  # (N, M)
    peak = torch.where(peak > 0, peak, torch.inf)[..., None]  # an object that no anchor overlaps has no best anchor
    return torch.cat([(_iou(boxes, labels, part) == peak).any(dim=1) for part in chunks], dim=1)


def _iou(boxes: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
    """(N, M, R) IoU of objects (N, M, 4) and anchors (R, 4), -1 for padding."""
    return iou_with_anchors(boxes, anchors).masked_fill_(labels[..., None] == BACKGROUND, -1.0)
