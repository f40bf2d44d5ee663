"""Which objects the configured anchors reach, and so which recall can be hoped for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.config.data import ShortLong
from detector.config.loss import AssignerConfig
from detector.config.model import AnchorConfig
from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.data.transforms import evaluated
from detector.doctor.by_class import class_shares, split_by_class
from detector.doctor.reach.anchor_fit import best_iou, cell_distances, holds_centre
from detector.doctor.reach.anchor_search import Proposal, propose_anchors
from detector.doctor.reach.resized_objects import ResizedObjects, resize_objects
from detector.models.build import build_anchors
from detector.utils.text import counted

WORST = 24  # lost objects that are named, at most
WORST_OF_CLASS = 3  # ... of one class
BY_CENTRE = ("atss", "tal")  # assigners for which an anchor's centre must lie in the object, whatever its IoU


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

    For max_iou an object is reached if some anchor's IoU with it is at least `positive_iou`: these anchors learn it. It
    is lost if no anchor's IoU is at least `negative_iou`: its anchors learn that it is background. The exception is the
    anchor that overlaps it best, if the assigner is `low_quality`.

    For atss and tal an object can be reached if it holds the centre of an anchor, else it is lost. The exception are
    the anchors that fit it best, for `every_object`.
    """

    class_names: list[str]  # K
    image_size: int | ShortLong  # of evaluation
    anchors: AnchorConfig
    assigner: AssignerConfig
    best_iou: np.ndarray  # (B,) float32: the greatest IoU of any anchor with the object
    is_reached: np.ndarray  # (B,) bool
    is_lost: np.ndarray  # (B,) bool
    labels: np.ndarray  # (B,) int64
    boxes: np.ndarray  # (K,) int64 objects of the class
    reached: np.ndarray  # (K,) float64: share of the class's objects; NaN without any, as in the next two
    lost: np.ndarray  # (K,) float64: share of the class's objects
    median: np.ndarray  # (K,) float64: median of the best IoU
    worst: list[LostObject]  # the least IoU first, at most WORST, and WORST_OF_CLASS of a class
    proposal: Proposal | None  # better anchors, if they reach clearly more; for atss and tal none can

    @property
    def by_centre(self) -> bool:
        """Whether the centres of the anchors decide, not their IoU."""
        return self.assigner.name in BY_CENTRE

    @property
    def ceiling(self) -> float:
        """Share of all objects that are reached; NaN without any.

        The others have few trained anchors, which fit badly, or none: recall above this share rests on those.
        """
        return float(self.is_reached.mean()) if len(self.is_reached) else float("nan")

    def sentence(self) -> str:
        """What share is reached, and what becomes of the others."""
        reached, others = _by_centre(self) if self.by_centre else _by_iou(self)
        return reached if self.is_reached.all() else f"{reached}; {others}"

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
    best = best_iou(objects.sides, distances, build_anchors(config.model))
    assigner = config.loss.assigner
    by_centre = assigner.name in BY_CENTRE
    reached = holds_centre(objects.sides, distances) if by_centre else best >= assigner.positive_iou
    lost = ~reached if by_centre else best < assigner.negative_iou
    return Reach(
        class_names=data.class_names,
        image_size=evaluated(config.data.image_size),
        anchors=config.model.anchors,
        assigner=assigner,
        best_iou=best,
        is_reached=reached,
        is_lost=lost,
        labels=labels,
        boxes=np.bincount(labels, minlength=classes),
        reached=class_shares(reached, labels, classes),
        lost=class_shares(lost, labels, classes),
        median=np.array([np.median(own) if len(own) else np.nan for own in split_by_class(best, labels, classes)]),
        worst=_worst(data, objects, best, np.flatnonzero(lost)),
        proposal=None if by_centre else propose_anchors(objects, distances, config, classes),
    )


def _worst(data: CocoData, objects: ResizedObjects, best: np.ndarray, lost: np.ndarray) -> list[LostObject]:
    """lost: indices of the objects to choose from."""
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
    better, assigner = reach.proposal, reach.assigner
    reached, lost = f"IoU >= {assigner.positive_iou:g}", f"  {f'< {assigner.negative_iou:g}':>6s}"
    if reach.by_centre:  # all that is not reached is lost
        reached, lost = "a centre", ""
    title = f"  {'class':<{width}} {'boxes':>8s}  {reached:>10s}{lost}  median"
    rows = [title + ("  better" if better else "")]
    for k in np.argsort(reach.reached, kind="stable").tolist():  # NaN, without objects, comes last
        if reach.boxes[k]:
            share = "" if reach.by_centre else f"  {reach.lost[k]:>6.1%}"
            rows.append(
                f"  {reach.class_names[k]:<{width}} {reach.boxes[k]:>8d}  {reach.reached[k]:>10.1%}{share}"
                f"  {reach.median[k]:>6.2f}" + (f"  {better.after[k]:>6.1%}" if better else "")
            )
    return rows


def _summary(reach: Reach) -> list[str]:
    a, lost = reach.anchors, int(reach.is_lost.sum())
    ratios = ", ".join(f"{ratio:g}" for ratio in a.ratios)
    shapes = f"base_size {a.base_size:g}, {a.scales} scales, ratios {ratios}"
    also = "which objects hold the centre of an anchor, and " if reach.by_centre else ""
    none = (
        "no anchor has its centre in"
        if reach.by_centre
        else f"no anchor reaches IoU {reach.assigner.negative_iou:g} for"
    )
    return [
        f"  the table shows {also}the best IoU of any anchor ({shapes}) with each object",
        f"  {reach.sentence()}",
        *([reach.proposal.line()] if reach.proposal else []),
        *([f"  {none} {counted(lost, 'object')}: {_examples(reach)}"] if lost else []),
    ]


def _by_iou(reach: Reach) -> tuple[str, str]:
    """For max_iou: what share is reached, and what becomes of the others."""
    says = f"anchors with an IoU of {reach.assigner.positive_iou:g} or more reach {reach.ceiling:.1%} of the objects"
    rest = (
        "each of the others is learnt by the anchor that overlaps it best (low_quality), unless another object takes it"
        if reach.assigner.low_quality
        else "no anchor is trained for the others (low_quality is off)"
    )
    return says, rest


def _by_centre(reach: Reach) -> tuple[str, str]:
    """The same for atss and tal."""
    name = reach.assigner.name
    says = f"{name} trains anchors whose centre lies in the object: {reach.ceiling:.1%} of the objects hold one"
    rest = (
        "each of the others is learnt by the anchors that fit it best (every_object), unless another object takes them"
        if reach.assigner.every_object
        else "no anchor is trained for the others (loss.assigner.every_object=true gives them some)"
    )
    return says, rest


def _examples(reach: Reach) -> str:
    """The first three of the lost objects."""
    first = [
        f"annotation {o.annotation_id} ({o.class_name}, {o.resized[0]:.0f}x{o.resized[1]:.0f} px after resizing, "
        f"IoU {o.best_iou:.2f})"
        for o in reach.worst[:3]
    ]
    return ", ".join(first) + (" ..." if len(reach.worst) > 3 else "")
