"""What a detector is used with, chosen on val and kept in its checkpoint: a score for each class, and a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat

from detector.evaluation.metrics.bootstrap import FEW
from detector.evaluation.metrics.calibration import Calibration, fit_calibration
from detector.evaluation.metrics.matching import Matching
from detector.evaluation.metrics.thresholds import UNCHOSEN, Goal, Threshold
from detector.utils.text import shortened


@dataclass(frozen=True)
class Deployment:
    """thresholds: (K,) scores below which a detection of the class is not reported; of `borrowed` classes val had too
    few objects to choose from, of `unreached` ones it is as near to the goal as can be."""

    thresholds: np.ndarray
    borrowed: list[str]
    unreached: list[str]
    goal: Goal
    calibration: Calibration

    @classmethod
    def of(cls, matching: Matching, thresholds: Sequence[Threshold], goal: Goal) -> Deployment:
        """With `thresholds` that were chosen for the goal, and a calibration, both from one matching."""
        named = list(zip(matching.data.class_names, thresholds, strict=True))
        return cls(
            np.array([t.score for t in thresholds]),
            [name for name, t in named if not t.own],
            [name for name, t in named if not t.reached],
            goal,
            fit_calibration(matching),
        )

    def lines(self) -> list[str]:
        """What to know before relying on the thresholds."""
        lines = []
        if self.borrowed:
            lines.append(
                f"thresholds: val has fewer than {FEW} objects of {shortened(self.borrowed)}, too few to choose from: "
                "the score that suits all classes together is used for them"
            )
        if self.unreached:
            lines.append(
                f"thresholds: no score is known to give {shortened(self.unreached)} {self.goal}: the nearest is used, "
                f"or {UNCHOSEN} where nothing right was found on val"
            )
        return lines

    def state(self) -> dict:
        """Plain numbers for a checkpoint."""
        return {
            "thresholds": self.thresholds.tolist(),
            "borrowed": self.borrowed,
            "unreached": self.unreached,
            "goal": asdict(self.goal),
            "calibration": self.calibration.state(),
        }

    @classmethod
    def from_state(cls, state: object, num_classes: int) -> Deployment:
        """Raises ValueError for what `state` does not return of so many classes."""
        sound = _State.model_validate(state)
        maps = sound.calibration
        if not len(sound.thresholds) == len(maps) == num_classes or any(
            len(m.scores) != len(m.precision) for m in maps
        ):
            raise ValueError("of other classes")
        return cls(
            np.array(sound.thresholds),
            sound.borrowed,
            sound.unreached,
            sound.goal,
            Calibration([np.array(m.scores) for m in maps], [np.array(m.precision) for m in maps]),
        )


class _Map(BaseModel):
    scores: Annotated[list[FiniteFloat], Field(min_length=1)]
    precision: list[FiniteFloat]


class _State(BaseModel):
    thresholds: list[FiniteFloat]
    borrowed: list[str]
    unreached: list[str]
    goal: Goal
    calibration: list[_Map]
