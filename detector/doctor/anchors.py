"""Reachable? The best IoU of any anchor with each object, and anchors that would reach more of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.config import AnchorConfig, AssignerConfig, ShortLong


@dataclass(frozen=True)
class Reach:
    """B objects (crowds left out), K classes. An object is reached if some anchor's IoU with it is `positive_iou` or
    more, weak if none is, and lost if none is `negative_iou`."""

    class_names: list[str]  # K
    image_size: int | ShortLong
    anchors: AnchorConfig
    assigner: AssignerConfig
    best_iou: np.ndarray  # (B,) float32: the greatest IoU of any anchor with the object
    labels: np.ndarray  # (B,) int64
    boxes: np.ndarray  # (K,) int64 objects
    reached: np.ndarray  # (K,) float64: share of the class's objects; NaN without any, as in the next two
    lost: np.ndarray  # (K,) float64: share
    median: np.ndarray  # (K,) float64: of the best IoU
    worst: list[LostObject]  # the lost ones with the least IoU, at most WORST, no more than a few of one class first
    proposal: Proposal | None  # better anchors, where they reach clearly more

    @property
    def ceiling(self) -> float:
        """Share of all objects that are reached: the recall to expect at most of what anchors are trained for by IoU."""
        return float((self.best_iou >= self.assigner.positive_iou).mean()) if len(self.best_iou) else float("nan")


@dataclass(frozen=True)
class LostObject:
    """An object that no anchor reaches, and where to look at it."""

    annotation_id: int
    class_name: str
    file_name: str  # relative to the split's folder
    box: tuple[float, float, float, float]  # xywh, pixels of the file
    fed: tuple[float, float]  # width and height in pixels of the image as fed
    best_iou: float


@dataclass(frozen=True)
class Proposal:
    """Other anchors, and what they reach: each class's share before and after."""

    anchors: AnchorConfig
    before: np.ndarray  # (K,) float64 share reached with the configured anchors
    after: np.ndarray  # (K,) float64 ... with these
    mean_before: float  # of the classes that have objects
    mean_after: float
