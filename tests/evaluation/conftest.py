"""Datasets and detections written by hand: what stands where, and what was found."""

from pathlib import Path

import numpy as np
import pytest

from detector.data.coco import CocoData
from detector.evaluation.detections import Detections
from detector.evaluation.metrics.average_precision import coco_figures, hits_by_class
from detector.evaluation.metrics.matching import match


@pytest.fixture
def our_figures():
    """our_figures(detections, data): COCO's figures from our own arrays."""

    def our_figures(detections: Detections, data: CocoData) -> dict:
        return coco_figures(hits_by_class(match(detections, data)), data.class_names)

    return our_figures


@pytest.fixture
def scene():
    """scene(classes, objects, found): data and detections from tuples.

    objects: (image, class, x, y, w, h) or with a seventh value, whether it is a crowd; found: (image, class, score, x,
    y, w, h). Images are numbered from 0, as many as are named.
    """

    def scene(classes: list[str], objects: list[tuple], found: list[tuple]) -> tuple[CocoData, Detections]:
        objects = sorted(((*o, False)[:7] for o in objects), key=lambda o: o[0])
        images = 1 + max(row[0] for row in [*objects, *found])
        boxes = np.array([o[2:6] for o in objects], np.float64).reshape(-1, 4)
        data = CocoData(
            class_names=classes,
            category_ids=np.arange(1, len(classes) + 1),
            images_dir=Path("nowhere"),
            image_ids=np.arange(images) + 1,
            heights=np.full(images, 1000, np.int32),
            widths=np.full(images, 1000, np.int32),
            names=b"x" * images,
            name_offsets=np.arange(images + 1),
            first=np.searchsorted([o[0] for o in objects], np.arange(images + 1)),
            boxes=boxes,
            areas=boxes[:, 2] * boxes[:, 3],
            labels=np.array([classes.index(o[1]) for o in objects], np.int32),
            iscrowd=np.array([o[6] for o in objects], bool),
            annotation_ids=np.arange(len(objects)) + 1,
        )
        found = sorted(found, key=lambda f: f[0])
        corners = np.array([(x, y, x + w, y + h) for _, _, _, x, y, w, h in found], np.float32).reshape(-1, 4)
        return data, Detections(
            images=np.array([f[0] for f in found], np.int64),
            boxes=corners,
            scores=np.array([f[2] for f in found], np.float32),
            labels=np.array([classes.index(f[1]) for f in found], np.int64),
        )

    return scene


@pytest.fixture
def jumble():
    """jumble(data, seed, per_image): detections near the objects of `data`, some of another class, with tied scores."""

    def jumble(data: CocoData, seed: int = 0, per_image: int = 30) -> Detections:
        rng = np.random.default_rng(seed)
        filled = np.flatnonzero(np.diff(data.first))
        images = np.repeat(filled, per_image)
        objects = data.first[images] + (rng.random(len(images)) * np.diff(data.first)[images]).astype(int)
        boxes = data.boxes[objects].copy()
        boxes[:, 2:] += boxes[:, :2]
        boxes += rng.normal(0, 0.12, boxes.shape) * np.tile(data.boxes[objects][:, 2:], 2)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = data.labels[objects].astype(np.int64)
        wrong = rng.random(len(labels)) < 0.2
        labels[wrong] = rng.integers(0, len(data.class_names), wrong.sum())
        scores = np.round(rng.random(len(labels)), 2).astype(np.float32)
        return Detections(images, boxes.astype(np.float32), scores, labels)

    return jumble
