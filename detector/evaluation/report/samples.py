"""A contact sheet of an evaluation: ground truth beside detections."""

from __future__ import annotations

import numpy as np

from detector.data.coco import CocoData
from detector.data.image import read_image
from detector.evaluation.detections import Detections
from detector.evaluation.report.draw import contact_sheet, truth_beside_detections

SAMPLES = 8  # pictures of a contact sheet


DRAWN_SCORE = 0.3  # detections below are not drawn


def draw_samples(detections: Detections, data: CocoData) -> np.ndarray:
    """Some images with their ground truth (left, white) and detections (right), as one picture (H, W, 3).

    Chosen to show every class, the rarest first, rather than at random: that is where to look.
    """
    pictures = []
    for i in choose_samples(data):
        mine = (detections.images == i) & (detections.scores >= DRAWN_SCORE)
        found = {key: getattr(detections, key)[mine] for key in ("boxes", "scores", "labels")}
        image = read_image(data.images_dir / data.file_name(i), (int(data.heights[i]), int(data.widths[i])))
        pictures.append(truth_beside_detections(image, data.target_boxes(i), found, data.class_names))
    return contact_sheet(pictures, columns=2)


def choose_samples(data: CocoData) -> list[int]:
    """At most SAMPLES images: one for each class from the rarest on, then the first of the rest."""
    image_of_box = np.repeat(np.arange(len(data)), np.diff(data.first))
    chosen: list[int] = []
    for label in np.argsort(data.class_counts(), kind="stable"):
        chosen += [int(i) for i in image_of_box[data.labels == label] if i not in chosen][:1]
    chosen += [i for i in range(min(len(data), SAMPLES)) if i not in chosen]
    return sorted(chosen[:SAMPLES])
