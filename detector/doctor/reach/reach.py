"""Reachable? Which objects the configured anchors reach, and what recall that leaves to hope for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.config.schema import AnchorConfig, AssignerConfig, Config, ShortLong
from detector.data.coco import CocoData
from detector.doctor.reach.anchor_fit import best_iou, cell_distances, class_shares
from detector.doctor.reach.anchor_search import Proposal, propose_anchors
from detector.doctor.reach.resized_objects import FedObjects, fed_objects

WORST = 24  # lost objects that are named, and
WORST_OF_CLASS = 3  # ... of one class


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
class Reach:
    """B objects (crowds left out), K classes. An object is reached if some anchor's IoU with it is `positive_iou` or
    more: those learn it. One for which no anchor has even `negative_iou` is lost: its anchors learn that it is
    background, but for the one that overlaps it best, where the assigner is `low_quality`."""

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
    worst: list[LostObject]  # the lost ones with the least IoU first, at most WORST, of a class WORST_OF_CLASS
    proposal: Proposal | None  # better anchors, where they reach clearly more

    @property
    def ceiling(self) -> float:
        """Share of all objects that are reached. What is not has one trained anchor (`low_quality`) or none: recall
        above this rests on those."""
        return float((self.best_iou >= self.assigner.positive_iou).mean()) if len(self.best_iou) else float("nan")

    def lines(self) -> list[str]:
        """For the console: a table with a line a class, the least reached first, and what that means."""
        return [*_table(self), *_summary(self)]


def reach(data: CocoData, config: Config) -> Reach:
    """How well the anchors of `config` fit the objects of `data` at its image size. Reads no image.

    Raises InputError where `config` names no model that can be built, or anchors that vanish.
    """
    objects = fed_objects(data, config.data.image_size)
    classes = len(data.class_names)
    distances = cell_distances(objects, config.model)
    best = best_iou(objects.sides, distances, config.model.anchors)
    assigner = config.loss.assigner
    return Reach(
        class_names=data.class_names,
        image_size=config.data.image_size,
        anchors=config.model.anchors,
        assigner=assigner,
        best_iou=best,
        labels=objects.labels,
        boxes=np.bincount(objects.labels, minlength=classes),
        reached=class_shares(best >= assigner.positive_iou, objects.labels, classes),
        lost=class_shares(best < assigner.negative_iou, objects.labels, classes),
        median=np.array([np.median(best[own]) if len(own) else np.nan for own in _of_class(objects.labels, classes)]),
        worst=_worst(data, objects, best, assigner.negative_iou),
        proposal=propose_anchors(objects, distances, config, classes),
    )


def _of_class(labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """Of each class the indices of its objects."""
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=classes))[:-1])


def _worst(data: CocoData, objects: FedObjects, best: np.ndarray, below: float) -> list[LostObject]:
    lost = np.flatnonzero(best < below)
    chosen, of_class = [], np.zeros(len(data.class_names), int)
    for b in lost[np.argsort(best[lost], kind="stable")].tolist():
        if len(chosen) == WORST:
            break
        if of_class[objects.labels[b]] < WORST_OF_CLASS:
            of_class[objects.labels[b]] += 1
            chosen.append(b)
    return [
        LostObject(
            int(data.annotation_ids[objects.index[b]]),
            data.class_names[objects.labels[b]],
            data.file_name(int(objects.images[b])),
            tuple(data.boxes[objects.index[b]].tolist()),
            tuple(objects.sides[b].tolist()),
            float(best[b]),
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
        "each of the others is learnt by the anchor that overlaps it best (low_quality), if no other object takes it"
        if reach.assigner.low_quality
        else "no anchor is trained for the others (low_quality is off)"
    )
    return [
        f"  best IoU of any anchor (base_size {a.base_size:g}, {a.scales} scales, ratios {ratios}) with each object",
        f"  recall that anchors of IoU {positive:g} or more can give: {reach.ceiling:.1%}; {rest}",
        *([reach.proposal.line()] if reach.proposal else []),
        *([f"  {lost} objects have no anchor of IoU {negative:g}: {_where(reach)}"] if lost else []),
    ]


def _where(reach: Reach) -> str:
    """The first of the lost objects, by id."""
    first = [
        f"annotation {o.annotation_id} ({o.class_name}, {o.fed[0]:.0f}x{o.fed[1]:.0f} px as fed, IoU {o.best_iou:.2f})"
        for o in reach.worst[:3]
    ]
    return ", ".join(first) + (" ..." if len(reach.worst) > 3 else "")
