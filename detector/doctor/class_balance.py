"""Imbalanced how? Boxes, images, company, sizes and shapes of each class, and anchors that are positive or negative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array

from detector.config.schema import Config, ShortLong
from detector.data.class_groups import class_groups
from detector.data.coco import CocoData
from detector.data.resampling import image_class_pairs
from detector.doctor.reach.resized_objects import FedObjects, fed_objects, grids
from detector.losses.assigners import build_assigner
from detector.losses.assigners.assignment import IGNORED
from detector.models.anchors import AnchorGenerator

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SAMPLE = 200  # images whose anchors are assigned, spread evenly over the split: seconds, and the means are steady
SIZE_EDGES = 2.0 ** np.arange(0, 12)  # bins of the histogram of sizes: an octave each, in pixels; more at both ends
CPU = torch.device("cpu")
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

    @property
    def order(self) -> np.ndarray:
        """(K,) int64: classes by boxes, the commonest first."""
        return np.argsort(-self.boxes, kind="stable")

    def lines(self) -> list[str]:
        """For the console: a table with a line a class, the rarest last, and what concerns them all."""
        return [*_table(self), *_summary(self)]


def describe_classes(data: CocoData, config: Config) -> ClassReport:
    """The classes of `data`, at the image size, anchors and assigner of `config`. Reads no image.

    Raises InputError where `config` names no model that can be built.
    """
    objects = fed_objects(data, config.data.image_size)
    classes = len(data.class_names)
    counts = data.class_counts()
    together = _together(data)
    sides = objects.sides.astype(np.float64)
    sizes, aspects = np.sqrt(sides.prod(axis=1)), sides[:, 1] / sides[:, 0]
    per_image = np.bincount(np.repeat(np.arange(len(data)), np.diff(data.first))[~data.iscrowd], minlength=len(data))
    present = counts[counts > 0]
    return ClassReport(
        class_names=data.class_names,
        image_size=config.data.image_size,
        num_images=len(data),
        boxes=counts,
        images=together.diagonal().copy(),
        groups=class_groups(counts),
        together=together,
        sizes=_by_class(sizes, objects.labels, classes),
        aspects=_by_class(aspects, objects.labels, classes),
        size_histogram=_histograms(sizes, objects.labels, classes, SIZE_EDGES),
        aspect_histogram=_histograms(aspects, objects.labels, classes, ASPECT_EDGES),
        objects_an_image=np.bincount(per_image),
        imbalance_ratio=float(present.max() / present.min()) if len(present) else float("nan"),
        gini=gini(present),
        assignments=assign_sample(objects, config, classes),
    )


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of `counts` (n,) > 0: the mean difference of two of them, relative to twice their mean."""
    n = len(counts)
    if n == 0:
        return float("nan")
    ranks = 2 * np.arange(1, n + 1) - n - 1
    return float((ranks * np.sort(counts)).sum() / (n * counts.sum()))


def assign_sample(objects: FedObjects, config: Config, classes: int) -> Assignments:
    """Assign the anchors of SAMPLE images, without augmentation, as a training step would."""
    images = np.unique(np.linspace(0, len(objects.sizes) - 1, SAMPLE).round().astype(np.int64))
    sizes, inverse = np.unique(objects.sizes[images], axis=0, return_inverse=True)
    padded, cells = grids(config.model, sizes)
    generator = AnchorGenerator(**config.model.anchors.model_dump())
    assigner = build_assigner(config.loss.assigner)
    anchors = positives = ignored = 0
    class_positives, untrained = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    first = np.searchsorted(objects.images, np.arange(len(objects.sizes) + 1))
    labels = [objects.labels[first[i] : first[i + 1]] for i in images]
    for i, label, size in zip(images, labels, inverse.ravel(), strict=True):
        grid = generator(tuple(padded[size].tolist()), [tuple(level) for level in cells[size].tolist()], CPU)
        own = torch.from_numpy(objects.boxes[first[i] : first[i + 1]])
        answer = assigner({"anchors": grid}, [{"boxes": own, "labels": torch.from_numpy(label)}])
        positive = answer.classes[0] >= 0
        of_object = torch.bincount(answer.objects[0][positive], minlength=len(label)).numpy()[: len(label)]
        anchors, positives = anchors + len(grid), positives + int(positive.sum())
        ignored += int((answer.classes == IGNORED).sum())
        class_positives += np.bincount(label, of_object, minlength=classes).astype(np.int64)
        untrained += np.bincount(label[of_object == 0], minlength=classes)
    n = len(images)
    sampled = np.bincount(np.concatenate(labels), minlength=classes)
    return Assignments(n, anchors / n, positives / n, ignored / n, sampled, class_positives, untrained)


def _together(data: CocoData) -> np.ndarray:
    """(K, K) int64: images that have both classes."""
    images, labels = image_class_pairs(data)
    has = csr_array((np.ones(len(images), np.int64), (images, labels)), shape=(len(data), len(data.class_names)))
    return (has.T @ has).toarray()


def _by_class(values: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(K, 5) QUANTILES of the values (B,) of each class."""
    ordered = values[np.argsort(labels, kind="stable")]
    parts = np.split(ordered, np.cumsum(np.bincount(labels, minlength=classes))[:-1])
    return np.array([np.quantile(part, QUANTILES) if len(part) else [np.nan] * len(QUANTILES) for part in parts])


def _histograms(values: np.ndarray, labels: np.ndarray, classes: int, edges: np.ndarray) -> np.ndarray:
    bins = len(edges) + 1
    places = labels * bins + np.searchsorted(edges, values, side="right")
    return np.bincount(places, minlength=classes * bins).reshape(classes, bins)


def _table(report: ClassReport) -> list[str]:
    """Class, boxes, images, group, size, aspect, and which class it mostly stands beside."""
    width = max(len("class"), *map(len, report.class_names))
    rows = [f"  {'class':<{width}} {'boxes':>8s} {'images':>7s}  group   {'size px':>15s}  {'high/wide':>11s}  beside"]
    for k in report.order.tolist():
        (low, _, middle, _, high), shape = report.sizes[k], report.aspects[k]
        spread = f"{middle:.0f} ({low:.0f}-{high:.0f})" if report.boxes[k] else "-"
        shapes = f"{shape[0]:.2f}-{shape[-1]:.2f}" if report.boxes[k] else "-"
        rows.append(
            f"  {report.class_names[k]:<{width}} {report.boxes[k]:>8d} {report.images[k]:>7d}  {report.groups[k]:<6s}  "
            f"{spread:>15s}  {shapes:>11s}  {_company(report, k)}"
        )
    return rows


def _company(report: ClassReport, k: int) -> str:
    """The class that most of the images of class k have too."""
    others = report.together[k].copy()
    others[k] = 0
    beside = int(others.argmax())
    if not others[beside]:
        return "no other class" if report.images[k] else "-"
    return f"{report.class_names[beside]} in {others[beside] / report.images[k]:.0%} of its images"


def _summary(report: ClassReport) -> list[str]:
    an_image, a = report.objects_an_image, report.assignments
    total, images = int(report.boxes.sum()), report.num_images
    empty = int(an_image[0]) if len(an_image) else 0
    named = report.image_size if isinstance(report.image_size, int) else report.image_size.model_dump()
    lines = [
        f"  sizes: median (5 %-95 %) of sqrt(width x height), and 5 %-95 % of height / width, at image_size {named}",
        f"  {total} objects in {images} images: {total / images:.1f} an image, at most {len(an_image) - 1}; "
        f"{empty} images without any",
        f"  imbalance: the commonest class has {report.imbalance_ratio:.0f} times the boxes of the rarest, "
        f"Gini {report.gini:.2f} (0: all alike)",
        f"  an image has {a.positives:.0f} positive anchors, {a.ignored:.0f} ignored, {a.negatives:.0f} of background: "
        f"1 to {a.negatives / max(a.positives, 1e-9):.0f} (mean of {a.images} images)",
    ]
    untrained = int(a.untrained.sum())
    if untrained:
        worst = int(a.untrained.argmax())
        lines.append(
            f"  no anchor is positive for {untrained} of the {int(a.objects.sum())} objects in them, most of them "
            f"{report.class_names[worst]}: the anchors that overlap them best answer for another object"
        )
    return lines
