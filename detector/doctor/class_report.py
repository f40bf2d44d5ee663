"""Imbalanced how? Boxes, images, company, sizes and shapes of each class, and anchors that are positive or negative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array

from detector.config import Config, ShortLong
from detector.data.class_groups import class_groups
from detector.data.coco import CocoData
from detector.data.resampling import image_class_pairs
from detector.doctor.fed import FedObjects, fed_objects
from detector.losses.assigner import BACKGROUND, IGNORED, MaxIoUAssigner
from detector.models.anchors import AnchorGenerator

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SAMPLE = 200  # images whose anchors are assigned, spread evenly over the split: seconds, and the means are steady
SIZE_EDGES = 2.0 ** np.arange(0, 12)  # bins of the histogram of sizes: an octave each, in pixels; more at both ends
ASPECT_EDGES = 2.0 ** np.arange(-3, 3.5, 0.5)  # bins of the histogram of height / width, half an octave each


@dataclass(frozen=True)
class Assignments:
    """What the configured assigner does with the anchors of a sample of images, each padded for itself."""

    images: int  # in the sample
    anchors: float  # an image, on average, as are the next two
    positives: float
    ignored: float
    objects: np.ndarray  # (K,) int64 of each class in the sample
    class_positives: np.ndarray  # (K,) int64 anchors that are positive for them
    untrained: np.ndarray  # (K,) int64 objects for which no anchor is positive: others took those that they have

    @property
    def negatives(self) -> float:
        """Anchors of the background, an image on average."""
        return self.anchors - self.positives - self.ignored


@dataclass(frozen=True)
class ClassReport:
    """K classes in the order of the labels; crowds are left out. Sizes are sqrt(width * height) of a box, in pixels of
    the image as fed; aspects are height / width there. Quantiles (QUANTILES) are NaN for a class without boxes."""

    class_names: list[str]  # K
    image_size: int | ShortLong
    num_images: int
    boxes: np.ndarray  # (K,) int64
    images: np.ndarray  # (K,) int64 images that have the class
    groups: list[str]  # K: head, medium or tail
    together: np.ndarray  # (K, K) int64 images that have both classes; the diagonal is `images`
    sizes: np.ndarray  # (K, 5) float64 quantiles
    aspects: np.ndarray  # (K, 5) float64 quantiles
    size_histogram: np.ndarray  # (K, len(SIZE_EDGES) + 1) int64: below the first edge, between edges, from the last on
    aspect_histogram: np.ndarray  # (K, len(ASPECT_EDGES) + 1) int64, likewise
    objects_an_image: np.ndarray  # (most + 1,) int64: images with 0, 1, 2, ... objects
    imbalance_ratio: float  # most boxes of a class to fewest, of the classes that have any; NaN without objects
    gini: float  # of the boxes of the same classes: 0 = all have as many, towards 1 = one has all
    assignments: Assignments
