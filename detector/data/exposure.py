"""What an epoch shows of each class under a way to sample, beside what is in the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.data.coco import CocoData
from detector.data.resampling import image_class_pairs
from detector.data.sampler import expected_draws


@dataclass(frozen=True)
class Exposure:
    """K classes; crowds are left out, and what augmentation does is not counted."""

    class_names: list[str]  # K
    boxes: np.ndarray  # (K,) int64 objects in the data
    images: np.ndarray  # (K,) int64 images that have the class
    expected_boxes: np.ndarray  # (K,) float64 objects seen in an epoch, on average
    expected_images: np.ndarray  # (K,) float64 images seen in an epoch, on average; one drawn twice counts twice
    background: int  # images without objects
    expected_background: float  # ... seen in an epoch, on average

    @property
    def change(self) -> np.ndarray:
        """(K,) float64: objects seen in an epoch relative to those in the data; NaN where there is none."""
        return np.where(self.boxes > 0, self.expected_boxes / np.maximum(self.boxes, 1), np.nan)

    def lines(self) -> list[str]:
        """A table, most objects first, so that the rare classes stand together at the end."""
        nothing = "(no object)"
        width = max(map(len, [nothing, *self.class_names]))
        order = np.argsort(-self.boxes, kind="stable")
        rows = [
            f"{self.class_names[c]:<{width}}{self.boxes[c]:>10d}{self.images[c]:>9d}"
            f"{self.expected_boxes[c]:>14.1f}{self.expected_images[c]:>10.1f}{_times(self.change[c])}"
            for c in order
        ]
        if self.background:
            change = self.expected_background / self.background
            rows.append(
                f"{nothing:<{width}}{'-':>10}{self.background:>9d}"
                f"{'-':>14}{self.expected_background:>10.1f}{_times(change)}"
            )
        return [
            f"{'':<{width}}{'in the data':>19}{'an epoch, expected':>24}",
            f"{'class':<{width}}{'boxes':>10}{'images':>9}{'boxes':>14}{'images':>10}{'change':>9}",
            *rows,
        ]


def exposure(data: CocoData, weights: np.ndarray) -> Exposure:
    """Expected exposure under image weights (I,) >= 0 (`resampling.image_weights`)."""
    draws = expected_draws(weights)
    classes = len(data.class_names)
    of_object = draws[data.box_images[~data.iscrowd]]
    labels = data.labels[~data.iscrowd]
    pair_images, pair_labels = image_class_pairs(data)
    background = np.bincount(pair_images, minlength=len(data)) == 0
    return Exposure(
        class_names=data.class_names,
        boxes=np.bincount(labels, minlength=classes),
        images=np.bincount(pair_labels, minlength=classes),
        expected_boxes=np.bincount(labels, of_object, minlength=classes),
        expected_images=np.bincount(pair_labels, draws[pair_images], minlength=classes),
        background=int(background.sum()),
        expected_background=float(draws[background].sum()),
    )


def _times(change: float) -> str:
    return f"{'-':>9}" if np.isnan(change) else f"{f'x{change:.2f}':>9}"
