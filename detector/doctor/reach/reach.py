"""Which objects the configured anchors reach, and so which recall can be hoped for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.config.schema import AnchorConfig, AssignerConfig, Config, ShortLong
from detector.data.coco import CocoData
from detector.data.transforms import evaluated
from detector.doctor.by_class import class_shares, split_by_class
from detector.doctor.reach.anchor_fit import best_iou, cell_distances
from detector.doctor.reach.anchor_search import Proposal, propose_anchors
from detector.doctor.reach.resized_objects import ResizedObjects, resize_objects
from detector.utils.text import counted

WORST = 24  # lost objects that are named, at most
WORST_OF_CLASS = 3  # ... of one class


@dataclass(frozen=True)
class LostObject:
    """An object that no anchor reaches, and where to look at it."""

    annotation_id: int
    class_name: str
    file_name: str  # relative to the split's folder
    box: tuple[float, float, float, float]  # xywh, pixels of the file
    resized: tuple[float, float]  # width and height in pixels of the resized image
    best_iou: float


@dataclass(frozen=True)
class Reach:
    """How anchors fit B objects (crowds left out) of K classes.

    An object is reached if some anchor's IoU with it is at least `positive_iou`: these anchors learn it. It is lost if
    no anchor's IoU is at least `negative_iou`: its anchors learn that it is background. The exception is the anchor
    that overlaps it best, if the assigner is `low_quality`.
    """

    class_names: list[str]  # K
    image_size: int | ShortLong  # of evaluation
    anchors: AnchorConfig
    assigner: AssignerConfig
    best_iou: np.ndarray  # (B,) float32: the greatest IoU of any anchor with the object
    labels: np.ndarray  # (B,) int64
    boxes: np.ndarray  # (K,) int64 objects of the class
    reached: np.ndarray  # (K,) float64: share of the class's objects; NaN without any, as in the next two
    lost: np.ndarray  # (K,) float64: share of the class's objects
    median: np.ndarray  # (K,) float64: median of the best IoU
    worst: list[LostObject]  # the least IoU first, at most WORST, and WORST_OF_CLASS of a class
    proposal: Proposal | None  # better anchors, if they reach clearly more

    @property
    def ceiling(self) -> float:
        """Share of all objects that are reached; NaN without any.

        The others have one trained anchor (`low_quality`) or none: recall above this share rests on those.
        """
        return float((self.best_iou >= self.assigner.positive_iou).mean()) if len(self.best_iou) else float("nan")

    def lines(self) -> list[str]:
        """For the console: a table with a line for each class, the least reached first, and a summary."""
        return [*_table(self), *_summary(self)]


def measure_reach(data: CocoData, config: Config) -> Reach:
    """How well the anchors of `config` fit the objects of `data` at its image size. Reads no image.

    Raises InputError if `config` names a model that cannot be built, or anchors whose sides round to 0.
    """
    objects = resize_objects(data, config.data.image_size)
    labels, classes = objects.labels, len(data.class_names)
    distances = cell_distances(objects, config.model)
    best = best_iou(objects.sides, distances, config.model.anchors)
    assigner = config.loss.assigner
    return Reach(
        class_names=data.class_names,
        image_size=evaluated(config.data.image_size),
        anchors=config.model.anchors,
        assigner=assigner,
        best_iou=best,
        labels=labels,
        boxes=np.bincount(labels, minlength=classes),
        reached=class_shares(best >= assigner.positive_iou, labels, classes),
        lost=class_shares(best < assigner.negative_iou, labels, classes),
        median=np.array([np.median(own) if len(own) else np.nan for own in split_by_class(best, labels, classes)]),
        worst=_worst(data, objects, best, assigner.negative_iou),
        proposal=propose_anchors(objects, distances, config, classes),
    )


def _worst(data: CocoData, objects: ResizedObjects, best: np.ndarray, below: float) -> list[LostObject]:
    lost = np.flatnonzero(best < below)
    chosen: list[int] = []
    taken = np.zeros(len(data.class_names), int)  # of each class
    for b in lost[np.argsort(best[lost], kind="stable")].tolist():
        if len(chosen) == WORST:
            break
        if taken[objects.labels[b]] < WORST_OF_CLASS:
            taken[objects.labels[b]] += 1
            chosen.append(b)
    return [
        LostObject(
            annotation_id=int(data.annotation_ids[objects.index[b]]),
            class_name=data.class_names[objects.labels[b]],
            file_name=data.file_name(int(objects.images[b])),
            box=tuple(data.boxes[objects.index[b]].tolist()),
            resized=tuple(objects.sides[b].tolist()),
            best_iou=float(best[b]),
        )
        for b in chosen
    ]


def _table(reach: Reach) -> list[str]:
    width = max(len("class"), *map(len, reach.class_names))
    head, better = f"IoU >= {reach.assigner.positive_iou:g}", reach.proposal
    title = f"  {'class':<{width}} {'boxes':>8s}  {head:>10s}  {f'< {reach.assigner.negative_iou:g}':>6s}  median"
    rows = [title + ("  better" if better else "")]
    for k in np.argsort(reach.reached, kind="stable").tolist():  # NaN, without objects, comes last
        if reach.boxes[k]:
            rows.append(
                f"  {reach.class_names[k]:<{width}} {reach.boxes[k]:>8d}  {reach.reached[k]:>10.1%}  "
                f"{reach.lost[k]:>6.1%}  {reach.median[k]:>6.2f}" + (f"  {better.after[k]:>6.1%}" if better else "")
            )
    return rows


def _summary(reach: Reach) -> list[str]:
    positive, negative = reach.assigner.positive_iou, reach.assigner.negative_iou
    a = reach.anchors
    ratios = ", ".join(f"{ratio:g}" for ratio in a.ratios)
    lost = int((reach.best_iou < negative).sum())
    rest = (
        "each of the others is learnt by the anchor that overlaps it best (low_quality), unless another object takes it"
        if reach.assigner.low_quality
        else "no anchor is trained for the others (low_quality is off)"
    )
    return [
        f"  the table shows the best IoU of any anchor (base_size {a.base_size:g}, {a.scales} scales, ratios {ratios}) "
        "with each object",
        f"  anchors with an IoU of {positive:g} or more reach {reach.ceiling:.1%} of the objects; {rest}",
        *([reach.proposal.line()] if reach.proposal else []),
        *([f"  no anchor reaches IoU {negative:g} for {counted(lost, 'object')}: {_examples(reach)}"] if lost else []),
    ]


def _examples(reach: Reach) -> str:
    """The first three of the lost objects."""
    first = [
        f"annotation {o.annotation_id} ({o.class_name}, {o.resized[0]:.0f}x{o.resized[1]:.0f} px after resizing, "
        f"IoU {o.best_iou:.2f})"
        for o in reach.worst[:3]
    ]
    return ", ".join(first) + (" ..." if len(reach.worst) > 3 else "")
