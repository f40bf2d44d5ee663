"""What a detector is used with: a threshold for each class and a calibration, chosen on val, kept in its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat

from detector.evaluation.detections import Detections
from detector.evaluation.metrics.bootstrap import FEW
from detector.evaluation.metrics.calibration import Calibration, fit_calibration
from detector.evaluation.metrics.matching import Matching
from detector.evaluation.metrics.score_thresholds import UNCHOSEN, WORKS, Goal, Threshold
from detector.utils.text import shortened


@dataclass(frozen=True)
class Deployment:
    """Thresholds and calibration of a detector with K classes."""

    thresholds: np.ndarray  # (K,) float64; a detection with a lower score is not reported
    borrowed: list[str]  # classes with too few objects on val; their threshold suits all classes together
    unreached: list[str]  # classes whose threshold does not reach the goal on val; it is as near as possible
    failing: list[str]  # classes that do not work on val (`Threshold.works`): not to be deployed
    goal: Goal
    calibration: Calibration

    @classmethod
    def of(cls, matching: Matching, thresholds: Sequence[Threshold], goal: Goal) -> Deployment:
        """From thresholds (K) that were chosen for the goal on this matching, which also gives the calibration."""
        named = list(zip(matching.data.class_names, thresholds, strict=True))
        return cls(
            thresholds=np.array([t.score for t in thresholds]),
            borrowed=[name for name, t in named if not t.own],
            unreached=[name for name, t in named if not t.reached],
            failing=[name for name, t in named if not t.works],
            goal=goal,
            calibration=fit_calibration(matching),
        )

    def calibrated(self, detections: Detections) -> tuple[Detections, Deployment]:
        """The detections with calibrated scores, and the deployment with calibrated thresholds.

        The same detections reach the thresholds as before: where the calibration is flat, those below a threshold are
        set to the next smaller number.
        """
        thresholds = self.calibration(self.thresholds, np.arange(len(self.thresholds)))
        scores = self.calibration(detections.scores, detections.labels)
        below = detections.scores < self.thresholds[detections.labels]
        just_below = np.nextafter(thresholds, np.float32(-1))[detections.labels]
        scores = np.where(below, np.minimum(scores, just_below), scores)
        return replace(detections, scores=scores), replace(self, thresholds=thresholds)

    def lines(self) -> list[str]:
        """Sentences about the classes that do not work on val, or whose thresholds are doubtful; none if all are
        sound."""
        if not self.failing:
            return self.threshold_lines()
        nothing_works = len(self.failing) == len(self.thresholds)
        return [f"warning: on val, {not_to_deploy(self.failing, nothing_works)}", *self.threshold_lines()]

    def threshold_lines(self) -> list[str]:
        """Of `lines`, those about thresholds: an evaluation itself says what works (report/verdict.py)."""
        lines = []
        if self.borrowed:
            lines.append(
                f"thresholds: val has fewer than {FEW} objects of {shortened(self.borrowed)}, too few to choose from; "
                "they take the threshold that is best for all classes together"
            )
        if self.unreached and self.goal.figure != "f_score":  # of the greatest F-score, `failing` says enough
            lines.append(
                f"thresholds: no threshold gives {self.goal} for {shortened(self.unreached)} on val; they take the "
                f"nearest one, or {UNCHOSEN} where no detection was right"
            )
        return lines

    def state(self) -> dict:
        """Plain numbers for a checkpoint."""
        return {
            "thresholds": self.thresholds.tolist(),
            "borrowed": self.borrowed,
            "unreached": self.unreached,
            "failing": self.failing,
            "goal": asdict(self.goal),
            "calibration": self.calibration.state(),
        }

    @classmethod
    def from_state(cls, state: object, num_classes: int) -> Deployment:
        """The inverse of `state`. Raises ValueError unless it is the state of a deployment of `num_classes` classes."""
        sound = _State.model_validate(state)
        maps = sound.calibration
        if not len(sound.thresholds) == len(maps) == num_classes or any(
            len(m.scores) != len(m.precision) for m in maps
        ):
            raise ValueError(f"a deployment that is not of {num_classes} classes")
        return cls(
            np.array(sound.thresholds),
            sound.borrowed,
            sound.unreached,
            sound.failing,
            sound.goal,
            Calibration([np.array(m.scores) for m in maps], [np.array(m.precision) for m in maps]),
        )


def not_to_deploy(failing: Sequence[str], nothing_works: bool) -> str:
    """The sentence about classes that do not work, without its full stop; nothing_works: these are all classes."""
    of_what = "no class works" if nothing_works else f"these classes do not work: {shortened(failing)}"
    return (
        f"{of_what}; do not deploy {'the detector' if nothing_works else 'them'}. F1 at the threshold is below "
        f"{WORKS:g}: most of what is reported is wrong, or most objects are missed"
    )


class _Map(BaseModel):
    """The calibration of one class, as `Calibration.state` has it."""

    scores: Annotated[list[FiniteFloat], Field(min_length=1)]
    precision: list[FiniteFloat]


class _State(BaseModel):
    """What `Deployment.state` returns."""

    thresholds: list[FiniteFloat]
    borrowed: list[str]
    unreached: list[str]
    failing: list[str] = []  # checkpoints of earlier versions do not say
    goal: Goal
    calibration: list[_Map]
