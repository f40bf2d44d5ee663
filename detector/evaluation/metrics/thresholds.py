"""The score to use a detector at: for each class the one that its objects and detections on val speak for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detector.evaluation.metrics.average_precision import ClassHits
from detector.evaluation.metrics.bootstrap import FEW

UNCHOSEN = 0.3  # the score to report from where nothing speaks for another


@dataclass(frozen=True)
class Goal:
    """What a threshold is to reach: the greatest F-score; or of `precision` or `recall` at least `target`, and then as
    much as there is of the other.

    F-score (van Rijsbergen 1979): (1 + beta²) p r / (beta² p + r), recall weighing beta times as much as precision.
    """

    figure: Literal["f_score", "precision", "recall"] = "f_score"
    beta: float = 1.0
    target: float = 0.9

    def __str__(self) -> str:
        if self.figure == "f_score":
            return f"the greatest F-score (beta {self.beta:g})"
        return f"a {self.figure} of {self.target:g}"

    def f_score(self, precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
        weighted = self.beta**2 * precision + recall
        return (1 + self.beta**2) * precision * recall / np.where(weighted > 0, weighted, 1)


@dataclass(frozen=True)
class Threshold:
    """A score, and what it gives on the data at hand (IoU 0.5)."""

    score: float
    precision: float
    recall: float
    f_score: float
    own: bool  # chosen from the class's own objects, not from those of all classes
    reached: bool  # the goal, as far as the data it was chosen on can tell


def choose_thresholds(hits: Sequence[ClassHits], goal: Goal) -> list[Threshold]:
    """One for each class. One with fewer than FEW objects takes the score that suits all classes together; where even
    those are fewer, or nothing right was found, it is UNCHOSEN."""
    curves = [_curve(h) for h in hits]
    together = tuple(np.concatenate(column) for column in zip(*((c[0], c[1]) for c in curves), strict=True))
    count = sum(c[2] for c in curves)
    pooled = _choose(*together, count, goal) if count >= FEW else (UNCHOSEN, False)
    choices = [(*_choose(*curve, goal), True) if curve[2] >= FEW else (*pooled, False) for curve in curves]
    return [
        _at(score, *curve, goal, own, reached) for curve, (score, reached, own) in zip(curves, choices, strict=True)
    ]


def thresholds_at(
    hits: Sequence[ClassHits], goal: Goal, scores: Sequence[float], own: Sequence[bool]
) -> list[Threshold]:
    """What given `scores` (K,) reach on other data than they were chosen on. own: as in Threshold."""
    curves = [_curve(h) for h in hits]
    return [_at(s, *c, goal, bool(o), reached=True) for s, c, o in zip(scores, curves, own, strict=True)]


def _curve(hits: ClassHits) -> tuple[np.ndarray, np.ndarray, int]:
    """scores (m,) of the detections that count, true (m,) bool, and the number of objects; at IoU 0.5."""
    counted, true = hits.in_size[0].copy(), np.zeros(len(hits.scores), bool)
    counted[hits.places], true[hits.places] = hits.counted[0, 0], hits.true[0, 0]
    return hits.scores[counted].astype(np.float64), true[counted], int(hits.num_objects[0])


def _choose(scores: np.ndarray, true: np.ndarray, count: int, goal: Goal) -> tuple[float, bool]:
    """The score, halfway to the first detection left out, and whether it reaches the goal."""
    if count == 0 or not true.any():
        return UNCHOSEN, False
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(true[order])
    precision, recall = found / np.arange(1, len(found) + 1), found / count
    last_of_score = np.append(scores[1:] < scores[:-1], True)  # detections of one score come in together
    value = {
        "f_score": goal.f_score(precision, recall),
        "precision": np.where(precision >= goal.target, 1 + recall, precision),
        "recall": np.where(recall >= goal.target, 1 + precision, recall),
    }[goal.figure]
    best = int(np.argmax(np.where(last_of_score, value, -1)))
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float((scores[best] + below) / 2), goal.figure == "f_score" or bool(value[best] >= 1)


def _at(
    score: float, scores: np.ndarray, true: np.ndarray, count: int, goal: Goal, own: bool, reached: bool
) -> Threshold:
    used = scores >= score
    found = int((true & used).sum())
    precision, recall = found / max(1, int(used.sum())), found / max(1, count)
    f_score = float(goal.f_score(np.float64(precision), np.float64(recall)))
    return Threshold(score, precision, recall, f_score, own, reached)
