"""From the model's outputs to detections, as torchvision's RetinaNet does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from detector.ops.boxes import decode


class Postprocess:
    """Threshold, the best candidates of each level, decode, clip, NMS, the best of the image.

    score_threshold: a candidate (anchor, class) needs a higher score.
    topk: the number of candidates of each pyramid level that enter NMS, best first.
    nms: by_class: boxes of one class suppress each other; all: those of all classes do.
    nms_iou: of two boxes that may suppress each other and have a greater IoU, the one with the lower score is dropped.
    max_detections: the most detections of an image.
    """

    def __init__(
        self,
        *,
        score_threshold: float,
        nms: Literal["by_class", "all"],
        nms_iou: float,
        topk: int,
        max_detections: int,
    ) -> None:
        self.score_threshold = score_threshold
        self.nms = nms
        self.nms_iou = nms_iou
        self.topk = topk
        self.max_detections = max_detections

    @torch.no_grad()
    def __call__(
        self,
        outputs: Mapping[str, Any],
        sizes: Sequence[tuple[int, int]],
        orig_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Detections of each image, best first, on the outputs' device.

        outputs: what RetinaNet returns.
        sizes: (h, w) of each image inside its padding, in pixels; boxes are clipped to it.
        orig_sizes: (h, w) of each image before it was resized; boxes are scaled to it. None: they are not scaled.
        Boxes that are not finite, as a diverged detector gives, are left out.
        Returns for each image a dict of boxes (n, 4) float32 xyxy in pixels of the original image (of the fed one
        without orig_sizes), scores (n,) float32 and labels (n,) int64 in 0..K-1; n may be 0.
        """
        detections = []
        for i, size in enumerate(sizes):
            scores, where, labels = self._candidates(outputs["logits"][i], outputs["anchors_per_level"])
            boxes = decode(outputs["deltas"][i][where], outputs["anchors"][where])
            finite = boxes.isfinite().all(dim=1)
            boxes, scores, labels = _clip(boxes[finite], size), scores[finite], labels[finite]
            keep = self._unsuppressed(boxes, scores, labels)[: self.max_detections]
            boxes = boxes[keep]
            if orig_sizes is not None:
                boxes = _scale(boxes, size, orig_sizes[i])
            detections.append({"boxes": boxes, "scores": scores[keep], "labels": labels[keep]})
        return detections

    def _unsuppressed(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Indices of the candidates that no better one suppresses, best first."""
        if self.nms == "all":
            return nms(boxes, scores, self.nms_iou)
        return batched_nms(boxes, scores, labels, self.nms_iou)

    def _candidates(self, logits: Tensor, anchors_per_level: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """An image's logits (R, K) → scores, anchor indices and labels (n,) of the best candidates of each level."""
        # Logits are compared: the sigmoid of all R * K, nearly all of them background, would be the slowest part.
        threshold = torch.logit(torch.tensor(self.score_threshold, dtype=torch.float64)).item()
        num_classes = logits.shape[1]
        best, indices, begin = [], [], 0
        for level in logits.split(anchors_per_level):
            level = level.float().flatten()
            above = torch.nonzero(level > threshold).squeeze(1)
            values, order = level[above].topk(min(self.topk, len(above)))
            best.append(values)
            indices.append(above[order] + begin)
            begin += len(level)
        where = torch.cat(indices)
        return torch.cat(best).sigmoid(), where // num_classes, where % num_classes


def _clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    boxes[:, 0::2].clamp_(0, width)
    boxes[:, 1::2].clamp_(0, height)
    return boxes


def _scale(boxes: Tensor, size: tuple[int, int], orig_size: tuple[int, int]) -> Tensor:
    boxes[:, 0::2] *= orig_size[1] / size[1]
    boxes[:, 1::2] *= orig_size[0] / size[0]
    return boxes
