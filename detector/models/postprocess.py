"""From the model's outputs to detections, with the semantics of torchvision's RetinaNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector.ops.boxes import decode


class Postprocess:
    """Threshold, the best candidates of each level, decode, clip, NMS by class, the best of the image.

    score_threshold: only scores above it count.
    topk: candidates (anchor, class) of each pyramid level that enter NMS.
    nms_iou: of two boxes of one class that overlap more, the better stays.
    max_detections: of an image.
    """

    def __init__(self, *, score_threshold: float, nms_iou: float, topk: int, max_detections: int) -> None:
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.topk = topk
        self.max_detections = max_detections

    @torch.no_grad()
    def __call__(
        self,
        outputs: dict,
        sizes: Sequence[tuple[int, int]],
        orig_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Detections of each image, best first, on the outputs' device.

        outputs: what RetinaNet returns.
        sizes: (h, w) of each image inside its padding; boxes are clipped to it.
        orig_sizes: (h, w) of each image before it was resized; given, boxes are scaled to it.
        Returns for each image boxes (n, 4) float32 xyxy in pixels (of the original image, or of the one fed),
        scores (n,) float32 and labels (n,) int64 in 0..K-1; n may be 0.
        """
        detections = []
        for i, size in enumerate(sizes):
            scores, where, labels = self._candidates(outputs["logits"][i], outputs["anchors_per_level"])
            boxes = decode(outputs["deltas"][i][where], outputs["anchors"][where])
            boxes = _clip(boxes, size)
            keep = batched_nms(boxes, scores, labels, self.nms_iou)[: self.max_detections]
            boxes = boxes[keep]
            if orig_sizes is not None:
                boxes = _scale(boxes, size, orig_sizes[i])
            detections.append({"boxes": boxes, "scores": scores[keep], "labels": labels[keep]})
        return detections

    def _candidates(self, logits: Tensor, anchors_per_level: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Of logits (R, K) of an image: scores, anchor indices and labels (n,) of the best of each level."""
        # Compared as logits: a sigmoid of all R * K, nearly all background, would be the slowest part.
        threshold = torch.logit(torch.tensor(self.score_threshold, dtype=torch.float64)).item()
        num_classes = logits.shape[1]
        best, where, begin = [], [], 0
        for level in logits.split(anchors_per_level):
            level = level.float().flatten()
            above = torch.nonzero(level > threshold).squeeze(1)
            values, order = level[above].topk(min(self.topk, len(above)))
            best.append(values)
            where.append(above[order] + begin)
            begin += len(level)
        where = torch.cat(where)
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
