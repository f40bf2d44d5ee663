"""How many anchors of an image are positive, ignored and background, and for which classes: a sample of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from detector.config.loss import AssignerConfig
from detector.config.schema import Config
from detector.doctor.reach.resized_objects import ResizedObjects, grids
from detector.losses.assigners import build_assigner
from detector.losses.assigners.assignment import IGNORED
from detector.models.build import build_anchors

SAMPLE = 200  # images, spread evenly over the split: takes seconds, and the means are steady
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Assignments:
    """What the configured assigner does with the anchors of a sample of images, each padded as alone in its batch.

    `tal` looks at predictions. Here they are as before the first step: all scores alike, and the anchors as boxes.
    """

    assigner: AssignerConfig
    images: int  # in the sample
    anchors: float  # of an image, on average, as the next two
    positives: float
    ignored: float
    objects: np.ndarray  # (K,) int64 objects of each class in the sample
    class_positives: np.ndarray  # (K,) int64 anchors that are positive for each class
    untrained: np.ndarray  # (K,) int64 objects without a positive anchor

    @property
    def negatives(self) -> float:
        """Background anchors of an image, on average."""
        return self.anchors - self.positives - self.ignored


def assign_sample(objects: ResizedObjects, config: Config, classes: int) -> Assignments:
    """Assign the anchors of SAMPLE images as a training step would without augmentation.

    Raises InputError if `config` names a model that cannot be built, or anchors whose sides round to 0.
    """
    images = np.unique(np.linspace(0, len(objects.padded_sizes) - 1, SAMPLE).round().astype(np.int64))
    sizes, inverse = np.unique(objects.padded_sizes[images], axis=0, return_inverse=True)
    padded, cells = grids(config.model, sizes)
    generator = build_anchors(config.model)
    assigner = build_assigner(config.loss.assigner)
    first = np.searchsorted(objects.images, np.arange(len(objects.padded_sizes) + 1))
    anchors = positives = ignored = 0
    sampled, class_positives, untrained = np.zeros((3, classes), np.int64)
    for i, size in zip(images, inverse.ravel(), strict=True):
        labels = objects.labels[first[i] : first[i + 1]]
        boxes = torch.from_numpy(objects.boxes[first[i] : first[i + 1]])
        (height, width), levels = padded[size].tolist(), [(h, w) for h, w in cells[size].tolist()]
        grid = generator((height, width), levels, CPU)
        outputs = {
            "logits": torch.zeros(()).expand(1, len(grid), classes),
            "deltas": torch.zeros(()).expand(1, len(grid), 4),
            "anchors": grid,
            "anchors_per_level": generator.level_sizes(levels),
            "anchors_per_cell": generator.anchors_per_cell,
        }
        answer = assigner(outputs, [{"boxes": boxes, "labels": torch.from_numpy(labels)}])
        positive = answer.classes[0] >= 0
        own = torch.bincount(answer.objects[0][positive], minlength=len(labels)).numpy()[: len(labels)]  # per object
        anchors += len(grid)
        positives += int(positive.sum())
        ignored += int((answer.classes == IGNORED).sum())
        sampled += np.bincount(labels, minlength=classes)
        class_positives += np.bincount(labels, own, minlength=classes).astype(np.int64)
        untrained += np.bincount(labels[own == 0], minlength=classes)
    n = len(images)
    means = anchors / n, positives / n, ignored / n
    return Assignments(config.loss.assigner, n, *means, sampled, class_positives, untrained)
