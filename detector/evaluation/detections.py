"""Detections of a dataset as flat arrays, and in COCO's results format.

Here labels become the dataset's own category ids again; inference/predict.py does that for images without annotations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.data.coco import CocoData


@dataclass
class Detections:
    """n detections on the images of a CocoData."""

    images: np.ndarray  # (n,) int64, index of the image in the data
    boxes: np.ndarray  # (n, 4) float32 xyxy in pixels of the original image
    scores: np.ndarray  # (n,) float32
    labels: np.ndarray  # (n,) int64 in 0..K-1

    @classmethod
    def from_batch(cls, batch: list[dict], first: int) -> Detections:
        """From the postprocess's list of {boxes, scores, labels} (tensors); its first entry is image `first`."""
        counts = [len(found["scores"]) for found in batch]
        keys = ("boxes", "scores", "labels")
        stacked = {key: np.concatenate([found[key].cpu().numpy() for found in batch]) for key in keys}
        return cls(images=np.repeat(np.arange(first, first + len(batch)), counts), **stacked)

    @classmethod
    def concatenate(cls, parts: list[Detections]) -> Detections:
        """All of them, in this order; no parts give no detections."""
        empty = cls(np.zeros(0, int), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
        parts = [empty, *parts]
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in cls.__dataclass_fields__))

    @classmethod
    def from_results(cls, results: list[dict], data: CocoData) -> Detections:
        """The inverse of `coco_results`. Raises KeyError of an image or category id that `data` does not have."""
        if not results:
            return cls.concatenate([])
        image_of = {id_: i for i, id_ in enumerate(data.image_ids.tolist())}
        label_of = {id_: label for label, id_ in enumerate(data.category_ids.tolist())}
        boxes = np.array([row["bbox"] for row in results], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        return cls(
            images=np.array([image_of[row["image_id"]] for row in results], np.int64),
            boxes=boxes.astype(np.float32),
            scores=np.array([row["score"] for row in results], np.float32),
            labels=np.array([label_of[row["category_id"]] for row in results], np.int64),
        )

    def select(self, chosen: np.ndarray) -> Detections:
        """Those of a boolean mask (n,) or of an index array."""
        return Detections(*(getattr(self, f)[chosen] for f in self.__dataclass_fields__))

    def xywh(self) -> np.ndarray:
        """(n, 4) float64 boxes, as in COCO's results format."""
        boxes = self.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return boxes


def coco_results(detections: Detections, data: CocoData) -> list[dict]:
    """COCO results format: the dataset's own image and category ids, boxes xywh in pixels of the original image."""
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(
            data.image_ids[detections.images].tolist(),
            data.category_ids[detections.labels].tolist(),
            detections.xywh().tolist(),
            detections.scores.tolist(),
            strict=True,
        )
    ]
