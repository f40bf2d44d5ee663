"""Detections of a dataset as flat arrays, and in COCO's results format. Category ids go back to the dataset's own here,
once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.data.coco import CocoData


@dataclass
class Detections:
    """n detections of a dataset: images (n,) int64 index of the image in the data, boxes (n, 4) float32 xyxy in
    original pixels, scores (n,) float32, labels (n,) int64 in 0..K-1."""

    images: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    @classmethod
    def from_batch(cls, found: list[dict], first: int) -> Detections:
        """From postprocess's list of {boxes, scores, labels}, the first of them image `first` of the data."""
        counts = [len(f["scores"]) for f in found]
        stacked = {key: np.concatenate([f[key].cpu().numpy() for f in found]) for key in ("boxes", "scores", "labels")}
        return cls(images=np.repeat(np.arange(first, first + len(found)), counts), **stacked)

    @classmethod
    def concatenate(cls, parts: list[Detections]) -> Detections:
        empty = cls(np.zeros(0, int), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
        parts = [empty, *parts]
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in cls.__dataclass_fields__))

    @classmethod
    def from_results(cls, results: list[dict], data: CocoData) -> Detections:
        """The inverse of `coco_results`."""
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

    def select(self, keep: np.ndarray) -> Detections:
        """Those of a boolean mask (n,)."""
        return Detections(*(getattr(self, f)[keep] for f in self.__dataclass_fields__))

    def xywh(self) -> np.ndarray:
        """(n, 4) float64, as in COCO's results format."""
        boxes = self.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return boxes


def coco_results(detections: Detections, data: CocoData) -> list[dict]:
    """COCO results format: the dataset's own image and category ids, xywh in original pixels."""
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
