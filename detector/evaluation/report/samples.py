"""samples.jpg: some images with their ground truth beside the detections."""

from __future__ import annotations

import numpy as np

from detector.data.coco import CocoData
from detector.data.image import read_image
from detector.evaluation.detections import Detections
from detector.evaluation.report.draw import contact_sheet, truth_beside_detections

SAMPLES = 8  # images on the sheet
MIN_SCORE = 0.3  # detections with a lower score are not drawn


def draw_samples(detections: Detections, data: CocoData) -> np.ndarray:
    """(H, W, 3) uint8 RGB: each chosen image with its ground truth at the left and its detections at the right."""
    pictures = []
    for i in choose_samples(data):
        shown = detections.select((detections.images == i) & (detections.scores >= MIN_SCORE))
        image = read_image(data.images_dir / data.file_name(i), (int(data.heights[i]), int(data.widths[i])))
        pictures.append(truth_beside_detections(image, data.target_boxes(i), shown, data.class_names))
    return contact_sheet(pictures, columns=2)


def choose_samples(data: CocoData) -> list[int]:
    """At most SAMPLES images: one that shows each class, from the rarest class on, then the first of the others."""
    box_images = data.box_images
    chosen: list[int] = []
    for label in np.argsort(data.class_counts(), kind="stable"):
        chosen += [int(i) for i in box_images[data.labels == label] if i not in chosen][:1]
    chosen += [i for i in range(min(len(data), SAMPLES)) if i not in chosen]
    return sorted(chosen[:SAMPLES])
