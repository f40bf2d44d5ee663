"""Anchors that reach more objects: ratios by k-means, base size and scales by trying."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans

from detector.config.schema import AnchorConfig, Config
from detector.doctor.reach.anchor_fit import best_iou, class_shares
from detector.doctor.reach.resized_objects import FedObjects
from detector.utils.errors import InputError

WORTHWHILE = 0.02  # what a change of the anchors must add to the share that is reached
SAMPLE = 10_000  # objects to try anchors on
BASES = 2.0 ** (np.arange(-12, 9) / 4)  # times the configured base_size
# (scales, ratios) an anchor set may have, by what it costs: anchors a cell.
KINDS = ((3, 3), (2, 5), (3, 4), (3, 5))


@dataclass(frozen=True)
class Proposal:
    """Other anchors, and what they reach: each class's share before and after."""

    anchors: AnchorConfig
    before: np.ndarray  # (K,) float64 share reached with the configured anchors; NaN without objects
    after: np.ndarray  # (K,) float64 ... with these
    mean_before: float  # the share over the objects, each weighing 1 / sqrt(boxes of its class)
    mean_after: float

    def line(self) -> str:
        """For the console."""
        a = self.anchors
        return (
            f"  better: base_size {a.base_size:g}, scales {a.scales}, ratios {a.ratios} reach {self.mean_after:.1%} "
            f"instead of {self.mean_before:.1%} (classes balanced)"
        )


def propose_anchors(objects: FedObjects, distances: np.ndarray, config: Config, classes: int) -> Proposal | None:
    """Anchors that reach at least WORTHWHILE more of the objects than those of `config`, or None.

    distances: as `cell_distances` gives them.

    What counts is the share of objects with an anchor of `positive_iou`, where an object weighs 1 / sqrt(boxes of its
    class), so that the rare classes are heard and a single box is not. Another number of anchors a cell, or other
    ratios, must each be worthwhile beside what is simpler; where `model.weights` names a detector's weights, the number
    of ratios and scales stays, as its head has it.
    """
    if not len(objects.labels):
        return None
    threshold = config.loss.assigner.positive_iou
    weights = 1 / np.sqrt(np.bincount(objects.labels, minlength=classes))[objects.labels]
    tried = _sample(weights)
    share = _Share(objects.sides[tried], distances[tried], threshold)
    anchors = _search(share, config.model.anchors, same_number=config.model.weights is not None)

    reached = [best_iou(objects.sides, distances, a) >= threshold for a in (config.model.anchors, anchors)]
    before, after = (float(np.average(r, weights=weights)) for r in reached)
    if after < before + WORTHWHILE:
        return None
    shares = [class_shares(r, objects.labels, classes) for r in reached]
    return Proposal(anchors, *shares, before, after)


@dataclass(frozen=True)
class _Share:
    """What anchors reach of S objects."""

    sides: np.ndarray  # (S, 2)
    distances: np.ndarray  # (S, L, 2)
    threshold: float

    def of(self, anchors: AnchorConfig) -> tuple[float, float]:
        """The share, and what decides between equal ones: the mean of the best IoU."""
        try:
            best = best_iou(self.sides, self.distances, anchors)
        except InputError:  # anchors so small that they vanish
            return 0.0, 0.0
        return float((best >= self.threshold).mean()), float(best.mean())


def _sample(weights: np.ndarray) -> np.ndarray:
    """At most SAMPLE objects, drawn by their weights, so that each then counts alike."""
    rng = np.random.default_rng(0)
    return rng.choice(len(weights), min(SAMPLE, 4 * len(weights)), p=weights / weights.sum())


def _search(share: _Share, start: AnchorConfig, same_number: bool) -> AnchorConfig:
    """From `start`: another base size; then ratios of the objects; then other numbers of both."""
    chosen = _best_base(share, start)
    reached = share.of(chosen)[0]
    if share.of(start)[0] >= reached - WORTHWHILE / 2:
        chosen, reached = start, share.of(start)[0]
    current = (start.scales, len(start.ratios))
    kinds = [current, *(kind for kind in KINDS if kind != current and not same_number)]
    for scales, number in kinds:
        ratios = _ratios(share.sides, number)
        if same_number and len(ratios) != number:
            continue
        best = _best_base(share, AnchorConfig(base_size=start.base_size, scales=scales, ratios=ratios))
        if share.of(best)[0] >= reached + WORTHWHILE:
            chosen, reached = best, share.of(best)[0]
    return chosen


def _best_base(share: _Share, anchors: AnchorConfig) -> AnchorConfig:
    """The anchors with the base size that reaches most."""
    bases = sorted({max(4.0, float(round(anchors.base_size * factor))) for factor in BASES})
    return max((anchors.model_copy(update={"base_size": base}) for base in bases), key=share.of)


def _ratios(sides: np.ndarray, number: int) -> list[float]:
    """Ascending ratios: the centres of `number` clusters of log(height / width), fewer where the boxes are so alike."""
    logs = np.log(sides[:, 1] / sides[:, 0]).astype(np.float64)
    guess = np.unique(np.quantile(logs, (np.arange(number) + 0.5) / number))
    centres = kmeans(logs, guess)[0] if len(guess) > 1 else guess
    return sorted({max(0.01, round(ratio, 2)) for ratio in np.exp(centres).tolist()})
