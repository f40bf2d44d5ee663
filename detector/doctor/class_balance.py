"""How imbalanced the classes are: boxes, images, sizes, shapes and co-occurrence of each class, and its anchors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from detector.config.data import ShortLong
from detector.config.loss import AssignerConfig
from detector.config.schema import Config
from detector.data.class_groups import class_groups
from detector.data.coco import CocoData
from detector.data.resampling import image_class_pairs
from detector.data.transforms import evaluated
from detector.doctor.by_class import split_by_class
from detector.doctor.reach.assignments import Assignments, assign_sample
from detector.doctor.reach.reach import BY_CENTRE
from detector.doctor.reach.resized_objects import resize_objects
from detector.utils.text import counted

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Edges of the bins of two histograms; another bin lies below the first edge, and one above the last.
SIZE_EDGES = 2.0 ** np.arange(0, 12)  # pixels: each bin an octave
ASPECT_EDGES = 2.0 ** np.arange(-3, 3.5, 0.5)  # height / width: each bin half an octave


@dataclass(frozen=True)
class ClassReport:
    """K classes in the order of the labels; crowds are left out.

    A size is sqrt(width * height) of a box in pixels of the resized image, an aspect is height / width there. Their
    QUANTILES are NaN for a class without boxes.
    """

    class_names: list[str]  # K
    image_size: int | ShortLong  # of evaluation
    num_images: int
    boxes: np.ndarray  # (K,) int64
    images: np.ndarray  # (K,) int64 images that have the class
    groups: list[str]  # K: head, medium or tail
    together: np.ndarray  # (K, K) int64 images that have both classes; the diagonal is `images`
    sizes: np.ndarray  # (K, 5) float64 quantiles
    aspects: np.ndarray  # (K, 5) float64 quantiles
    size_histogram: np.ndarray  # (K, len(SIZE_EDGES) + 1) int64
    aspect_histogram: np.ndarray  # (K, len(ASPECT_EDGES) + 1) int64
    objects_an_image: np.ndarray  # (most + 1,) int64: images with 0, 1, 2, ... objects
    imbalance_ratio: float  # boxes of the commonest class to boxes of the rarest that has any; NaN without objects
    gini: float  # of the boxes of the classes that have any: 0 = all have as many, towards 1 = one has all
    assignments: Assignments

    @property
    def order(self) -> np.ndarray:
        """(K,) int64: classes by boxes, the commonest first."""
        return np.argsort(-self.boxes, kind="stable")

    def lines(self) -> list[str]:
        """For the console: a table with a line for each class, the rarest last, and a summary."""
        return [*_table(self), *_summary(self)]


def describe_classes(data: CocoData, config: Config) -> ClassReport:
    """The classes of `data`, at the image size, anchors and assigner of `config`. Reads no image.

    Raises InputError if `config` names a model that cannot be built, or anchors whose sides round to 0.
    """
    objects = resize_objects(data, config.data.image_size)
    classes = len(data.class_names)
    counts = data.class_counts()
    together = _together(data)
    sides = objects.sides.astype(np.float64)
    sizes, aspects = np.sqrt(sides.prod(axis=1)), sides[:, 1] / sides[:, 0]
    per_image = np.bincount(data.box_images[~data.iscrowd], minlength=len(data))
    present = counts[counts > 0]
    return ClassReport(
        class_names=data.class_names,
        image_size=evaluated(config.data.image_size),
        num_images=len(data),
        boxes=counts,
        images=together.diagonal().copy(),
        groups=class_groups(counts),
        together=together,
        sizes=_quantiles(sizes, objects.labels, classes),
        aspects=_quantiles(aspects, objects.labels, classes),
        size_histogram=_histograms(sizes, objects.labels, classes, SIZE_EDGES),
        aspect_histogram=_histograms(aspects, objects.labels, classes, ASPECT_EDGES),
        objects_an_image=np.bincount(per_image),
        imbalance_ratio=float(present.max() / present.min()) if len(present) else float("nan"),
        gini=gini(present),
        assignments=assign_sample(objects, config, classes),
    )


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of `counts` (n,) > 0: mean difference of two of them, over twice their mean; NaN for none."""
    n = len(counts)
    if n == 0:
        return float("nan")
    ranks = 2 * np.arange(1, n + 1) - n - 1
    return float((ranks * np.sort(counts)).sum() / (n * counts.sum()))


def _together(data: CocoData) -> np.ndarray:
    """(K, K) int64: images that have both classes."""
    images, labels = image_class_pairs(data)
    has = csr_array((np.ones(len(images), np.int64), (images, labels)), shape=(len(data), len(data.class_names)))
    return (has.T @ has).toarray()


def _quantiles(values: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(K, 5) QUANTILES of the values (B,) of each class."""
    parts = split_by_class(values, labels, classes)
    return np.array([np.quantile(part, QUANTILES) if len(part) else [np.nan] * len(QUANTILES) for part in parts])


def _histograms(values: np.ndarray, labels: np.ndarray, classes: int, edges: np.ndarray) -> np.ndarray:
    """(K, len(edges) + 1) int64: values (B,) of each class in each bin."""
    bins = len(edges) + 1
    places = labels * bins + np.searchsorted(edges, values, side="right")
    return np.bincount(places, minlength=classes * bins).reshape(classes, bins)


def _table(report: ClassReport) -> list[str]:
    width = max(len("class"), *map(len, report.class_names))
    rows = [f"  {'class':<{width}} {'boxes':>8s} {'images':>7s}  group   {'size px':>15s}  {'high/wide':>11s}  with"]
    for k in report.order.tolist():
        (low, _, middle, _, high), aspects = report.sizes[k], report.aspects[k]
        size = f"{middle:.0f} ({low:.0f}-{high:.0f})" if report.boxes[k] else "-"
        aspect = f"{aspects[0]:.2f}-{aspects[-1]:.2f}" if report.boxes[k] else "-"
        rows.append(
            f"  {report.class_names[k]:<{width}} {report.boxes[k]:>8d} {report.images[k]:>7d}  {report.groups[k]:<6s}  "
            f"{size:>15s}  {aspect:>11s}  {_most_frequent_companion(report, k)}"
        )
    return rows


def _most_frequent_companion(report: ClassReport, k: int) -> str:
    """The other class that most of the images of class k have."""
    others = report.together[k].copy()
    others[k] = 0
    other = int(others.argmax())
    if not others[other]:
        return "no other class" if report.images[k] else "-"
    return f"{report.class_names[other]} in {others[other] / report.images[k]:.0%} of its images"


def _summary(report: ClassReport) -> list[str]:
    an_image, a = report.objects_an_image, report.assignments
    total, images = int(report.boxes.sum()), report.num_images
    empty = int(an_image[0]) if len(an_image) else 0
    size = report.image_size if isinstance(report.image_size, int) else report.image_size.model_dump()
    lines = [
        f"  sizes: median (5 %-95 %) of sqrt(width x height), and 5 %-95 % of height / width, at image_size {size}",
        f"  {counted(total, 'object')} in {counted(images, 'image')}: {total / images:.1f} an image, at most "
        f"{len(an_image) - 1}; {counted(empty, 'image')} without any",
        f"  imbalance: the commonest class has {report.imbalance_ratio:.0f} times the boxes of the rarest; "
        f"Gini {report.gini:.2f} (0: all have as many)",
        f"  an image has {a.positives:.0f} positive anchors, {a.ignored:.0f} ignored, {a.negatives:.0f} of background: "
        f"1 to {a.negatives / max(a.positives, 1e-9):.0f} (mean of {counted(a.images, 'image')}"
        f"{', before the first step' if a.assigner.name == 'tal' else ''})",
    ]
    untrained = int(a.untrained.sum())
    if untrained:
        worst = int(a.untrained.argmax())
        part = f"{a.untrained[worst]} of them " if a.untrained[worst] < untrained else ""
        lines.append(
            f"  without a positive anchor: {untrained} of the {counted(int(a.objects.sum()), 'object')} in these "
            f"({part}{report.class_names[worst]}); {_why_untrained(a.assigner)}"
        )
    return lines


def _why_untrained(assigner: AssignerConfig) -> str:
    if assigner.name in BY_CENTRE:
        return "no anchor that fits them has its centre in them, or another object took it"
    if assigner.low_quality:
        return "the anchors that overlap them best overlap another object more"
    return f"no anchor has an IoU of {assigner.positive_iou:g} with them, or it overlaps another object more"
