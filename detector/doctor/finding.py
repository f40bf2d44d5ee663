"""What the doctor says of a dataset: one finding a kind of trouble."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]  # training refuses or is spoilt; look at it; good to know


@dataclass(frozen=True)
class Example:
    """One case of a finding: what to call it (`annotation 17 (image a.jpg): [x, y, w, h] = ...`), and where to look."""

    text: str
    file_name: str | None = None  # of the image, relative to the split's folder, where there is one to look at
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # xywh in pixels, to draw on it


@dataclass(frozen=True)
class Finding:
    """A kind of trouble in one split: how bad, how often, the first examples, and what to do."""

    severity: Severity
    check: str  # short name, e.g. zero-size
    split: str  # train, val, test; or `train and val`
    count: int
    message: str  # a sentence: what is wrong
    advice: str  # a sentence: what to do about it
    examples: list[Example] = field(default_factory=list)
