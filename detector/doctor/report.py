"""What the doctor reports about one split: its classes, what anchors reach, and what to train with."""

from __future__ import annotations

from dataclasses import dataclass

from detector.doctor.advice.advice import Advice
from detector.doctor.class_balance import ClassReport
from detector.doctor.reach.reach import Reach


@dataclass(frozen=True)
class Report:
    """The part of an examination that needs annotations that can be used."""

    classes: ClassReport
    reach: Reach
    advice: Advice
