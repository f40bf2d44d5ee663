"""Searches for anchors that reach more objects: ratios by k-means, base size and number of scales by trying."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans

from detector.config.model import AnchorConfig, ModelConfig
from detector.config.schema import Config
from detector.doctor.by_class import class_shares
from detector.doctor.reach.anchor_fit import best_iou
from detector.doctor.reach.resized_objects import ResizedObjects
from detector.models.anchors import AnchorGenerator
from detector.models.build import build_anchors
from detector.utils.errors import InputError

WORTHWHILE = 0.02  # what a change of the anchors must add to the share of objects reached
SAMPLE = 10_000  # objects to try anchors on
BASE_FACTORS = 2.0 ** (np.arange(-12, 9) / 4)  # base sizes to try, relative to the configured one
NUMBERS = ((3, 3), (2, 5), (3, 4), (3, 5))  # (scales, ratios) to try, the fewest anchors a cell first


@dataclass(frozen=True)
class Proposal:
    """Other anchors, and the share of the objects that is reached with the configured ones and with these."""

    anchors: AnchorConfig
    before: np.ndarray  # (K,) float64 share of each class with the configured anchors; NaN without objects
    after: np.ndarray  # (K,) float64 share of each class with these
    mean_before: float  # share of the objects, each weighing 1 / sqrt(boxes of its class)
    mean_after: float

    def line(self) -> str:
        """For the console."""
        a = self.anchors
        return (
            f"  better: base_size {a.base_size:g}, scales {a.scales}, ratios {a.ratios} reach {self.mean_after:.1%} "
            f"instead of {self.mean_before:.1%} (classes balanced)"
        )


def propose_anchors(objects: ResizedObjects, distances: np.ndarray, config: Config, classes: int) -> Proposal | None:
    """Anchors that reach at least WORTHWHILE more of the objects than those of `config`; None if there are none.

    distances: from `cell_distances`.

    What counts is the share of objects with an anchor of `positive_iou`. An object weighs 1 / sqrt(boxes of its class):
    rare classes count more, a single box does not count for everything. Other ratios, and other numbers of anchors a
    cell, must each be worthwhile compared with what is simpler. If `model.weights` names weights of a detector, the
    numbers of ratios and scales stay, since its head has them.
    """
    if not len(objects.labels):
        return None
    threshold = config.loss.assigner.positive_iou
    weights = 1 / np.sqrt(np.bincount(objects.labels, minlength=classes))[objects.labels]
    tried = _sample(weights)
    sample = _Sample(objects.sides[tried], distances[tried], threshold, config.model)
    anchors = _search(sample, config.model.anchors, same_numbers=config.model.weights is not None)

    generators = (_generator(config.model, a) for a in (config.model.anchors, anchors))
    before, after = (best_iou(objects.sides, distances, generator) >= threshold for generator in generators)
    mean_before, mean_after = (float(np.average(reached, weights=weights)) for reached in (before, after))
    if mean_after < mean_before + WORTHWHILE:
        return None
    shares = (class_shares(reached, objects.labels, classes) for reached in (before, after))
    return Proposal(anchors, next(shares), next(shares), mean_before, mean_after)


@dataclass(frozen=True)
class _Sample:
    """S objects to try anchors on."""

    sides: np.ndarray  # (S, 2)
    distances: np.ndarray  # (S, L, 2)
    threshold: float
    model: ModelConfig  # whose other settings hold for the anchors that are tried

    def score(self, anchors: AnchorConfig) -> tuple[float, float]:
        """The share that the anchors reach; and, to decide between equal shares, the mean of the best IoU."""
        try:
            best = best_iou(self.sides, self.distances, _generator(self.model, anchors))
        except InputError:  # anchors whose sides round to 0
            return 0.0, 0.0
        return float((best >= self.threshold).mean()), float(best.mean())


def _generator(model: ModelConfig, anchors: AnchorConfig) -> AnchorGenerator:
    """What makes these anchors in place of the model's. Raises InputError if their sides round to 0."""
    return build_anchors(model.model_copy(update={"anchors": anchors}))


def _sample(weights: np.ndarray) -> np.ndarray:
    """Indices of at most SAMPLE objects, drawn by their weights, so that all count alike afterwards."""
    rng = np.random.default_rng(0)
    return rng.choice(len(weights), min(SAMPLE, 4 * len(weights)), p=weights / weights.sum())


def _search(sample: _Sample, start: AnchorConfig, same_numbers: bool) -> AnchorConfig:
    """From `start`: another base size; then ratios that fit the objects; then other numbers of scales and ratios."""
    chosen = _best_base_size(sample, start)
    reached = sample.score(chosen)[0]
    if sample.score(start)[0] >= reached - WORTHWHILE / 2:
        chosen, reached = start, sample.score(start)[0]
    current = (start.scales, len(start.ratios))
    others = [] if same_numbers else [numbers for numbers in NUMBERS if numbers != current]
    for scales, number in [current, *others]:
        ratios = _fitting_ratios(sample.sides, number)
        if same_numbers and len(ratios) != number:
            continue
        best = _best_base_size(sample, start.model_copy(update={"scales": scales, "ratios": ratios}))
        if sample.score(best)[0] >= reached + WORTHWHILE:
            chosen, reached = best, sample.score(best)[0]
    return chosen


def _best_base_size(sample: _Sample, anchors: AnchorConfig) -> AnchorConfig:
    """The anchors, with the base size that scores best."""
    sizes = sorted({max(4.0, float(round(anchors.base_size * factor))) for factor in BASE_FACTORS})
    return max((anchors.model_copy(update={"base_size": size}) for size in sizes), key=sample.score)


def _fitting_ratios(sides: np.ndarray, number: int) -> list[float]:
    """Ascending ratios: centres of `number` clusters of log(height / width); fewer if the boxes are very alike."""
    logs = np.log(sides[:, 1] / sides[:, 0]).astype(np.float64)
    guess = np.unique(np.quantile(logs, (np.arange(number) + 0.5) / number))
    centres = kmeans(logs, guess)[0] if len(guess) > 1 else guess
    return sorted({max(0.01, round(ratio, 2)) for ratio in np.exp(centres).tolist()})
