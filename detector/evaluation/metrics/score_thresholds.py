"""The score to use a detector at, chosen for each class on the objects and detections of val."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detector.evaluation.metrics.average_precision import ClassHits
from detector.evaluation.metrics.bootstrap import FEW

UNCHOSEN = 0.3  # the threshold where the data do not suggest another
# F1 from which on a class works at its threshold. With less, precision or recall is below 0.2: it is of no use.
# And wherever one of them is below 1/9, F1 is below 0.2: neither reporting everything nor reporting only the surest
# object reaches it.
WORKS = 0.2


def f1(right: int, detections: int, objects: int) -> float:
    """2 x right / (detections + objects), the F-score with beta 1; 0 without any. A wrong detection costs as much as a
    missed object."""
    return 2 * right / max(1, detections + objects)


@dataclass(frozen=True)
class Goal:
    """What a threshold is chosen for.

    figure: f_score: the greatest F-score. precision, recall: at least `target` of it, and then as much as possible of
        the other one.
    beta: F-score (van Rijsbergen 1979) = (1 + beta²) p r / (beta² p + r): recall weighs beta times as much.
    """

    figure: Literal["f_score", "precision", "recall"] = "f_score"
    beta: float = 1.0
    target: float = 0.9

    def __str__(self) -> str:
        if self.figure == "f_score":
            return f"the greatest F-score (beta {self.beta:g})"
        return f"a {self.figure} of {self.target:g}"

    def f_score(self, precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
        """Elementwise; 0 where both are 0."""
        weighted = self.beta**2 * precision + recall
        return (1 + self.beta**2) * precision * recall / np.where(weighted > 0, weighted, 1)

    def value(self, precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
        """What the best threshold maximises; of precision and recall, 1 or more where `target` is reached."""
        if self.figure == "precision":
            return np.where(precision >= self.target, 1 + recall, precision)
        if self.figure == "recall":
            return np.where(recall >= self.target, 1 + precision, recall)
        return self.f_score(precision, recall)


@dataclass(frozen=True)
class Threshold:
    """A score, and what it gives at IoU 0.5 on the data at hand."""

    score: float
    precision: float
    recall: float
    f_score: float
    own: bool  # chosen on the class's own objects, not on those of all classes together
    reached: bool  # the goal, on the data that the score was chosen on
    # F1 is WORKS or more here; of all classes together, if the class has fewer than FEW objects here. Also true where
    # these have fewer than FEW too: nothing is to be concluded.
    works: bool
    chosen: bool = True  # on val, for this detector; False: no threshold was, or it does not know the class


@dataclass(frozen=True)
class _Scored:
    """m detections that count, right or wrong at IoU 0.5, among a number of objects."""

    scores: np.ndarray  # (m,) float64
    right: np.ndarray  # (m,) bool
    num_objects: int

    @classmethod
    def of_class(cls, hits: ClassHits) -> _Scored:
        counted, right = hits.in_size[0].copy(), np.zeros(len(hits.scores), bool)
        counted[hits.places], right[hits.places] = hits.counted[0, 0], hits.true[0, 0]
        return cls(hits.scores[counted].astype(np.float64), right[counted], int(hits.num_objects[0]))

    @classmethod
    def of_all(cls, classes: Sequence[_Scored]) -> _Scored:
        return cls(
            np.concatenate([c.scores for c in classes]),
            np.concatenate([c.right for c in classes]),
            sum(c.num_objects for c in classes),
        )

    def counts(self, score: float) -> tuple[int, int, int]:
        """Detections with this score or more that are right, all with this score or more, and objects."""
        used = self.scores >= score
        return int((self.right & used).sum()), int(used.sum()), self.num_objects


def choose_thresholds(hits: Sequence[ClassHits], goal: Goal) -> list[Threshold]:
    """The threshold of each class that is best for `goal` on these detections.

    A class with fewer than FEW objects takes the one that is best for all classes together. This is UNCHOSEN if all
    classes together have fewer than FEW objects, or if no detection is right.
    """
    classes = [_Scored.of_class(h) for h in hits]
    together = _Scored.of_all(classes)
    pooled = _choose(together, goal) if together.num_objects >= FEW else (UNCHOSEN, False)
    own = [scored.num_objects >= FEW for scored in classes]
    chosen = [_choose(scored, goal) if is_own else pooled for scored, is_own in zip(classes, own, strict=True)]
    return _measured(classes, goal, [score for score, _ in chosen], own, [reached for _, reached in chosen])


def thresholds_at(
    hits: Sequence[ClassHits],
    goal: Goal,
    scores: Sequence[float] | np.ndarray,
    own: Sequence[bool] | np.ndarray,
    reached: Sequence[bool] | np.ndarray,
) -> list[Threshold]:
    """Given thresholds, and what they give on these data. scores, own, reached: (K,), see Threshold."""
    classes = [_Scored.of_class(h) for h in hits]
    return _measured(classes, goal, list(map(float, scores)), list(map(bool, own)), list(map(bool, reached)))


def _choose(scored: _Scored, goal: Goal) -> tuple[float, bool]:
    """The best score, halfway to the first detection that it leaves out; and whether it reaches the goal."""
    if scored.num_objects == 0 or not scored.right.any():
        return UNCHOSEN, False
    order = np.argsort(-scored.scores, kind="stable")
    scores, found = scored.scores[order], np.cumsum(scored.right[order])
    value = goal.value(found / np.arange(1, len(found) + 1), found / scored.num_objects)
    last_of_equals = np.append(scores[1:] < scores[:-1], True)  # a threshold takes all detections of one score, or none
    best = int(np.argmax(np.where(last_of_equals, value, -1)))
    next_lower = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float((scores[best] + next_lower) / 2), goal.figure == "f_score" or bool(value[best] >= 1)


def _measured(
    classes: Sequence[_Scored], goal: Goal, scores: Sequence[float], own: Sequence[bool], reached: Sequence[bool]
) -> list[Threshold]:
    """What these scores give; one of each for each class."""
    counts = [scored.counts(score) for scored, score in zip(classes, scores, strict=True)]
    together = tuple(sum(column) for column in zip(*counts, strict=True))
    thresholds = []
    for (right, detections, objects), score, is_own, is_reached in zip(counts, scores, own, reached, strict=True):
        precision, recall = right / max(1, detections), right / max(1, objects)
        f_score = float(goal.f_score(np.float64(precision), np.float64(recall)))
        judged = (right, detections, objects) if objects >= FEW else together
        works = judged[2] < FEW or f1(*judged) >= WORKS
        thresholds.append(Threshold(score, precision, recall, f_score, is_own, is_reached, works))
    return thresholds
