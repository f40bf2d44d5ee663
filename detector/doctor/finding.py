"""What the doctor says of a dataset: one finding a kind of trouble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from detector.utils.text import one_line

Severity = Literal["error", "warning", "note"]  # training refuses or is spoilt; look at it; good to know

EXAMPLES = 5


@dataclass(frozen=True)
class Example:
    """One case of a finding: what to call it (`annotation 17 (image a.jpg): [x, y, w, h] = ...`), and where to look."""

    text: str
    file_name: str | None = None  # of the image, relative to the (first) split's folder, if there is one to look at
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


def found(
    severity: Severity,
    check: str,
    split: str,
    cases: Sequence,
    message: str,
    advice: str,
    example: Callable[[Any], Example | str] | None = str,
) -> list[Finding]:
    """The finding of these cases, with the first of them as examples; none where there is no case.

    message: `{n}` in it becomes the number of cases.
    example: what to call a case; None where the message has said it. All that is said is made one line (`one_line`).
    """
    if len(cases) == 0:
        return []
    examples = [example(case) for case in cases[:EXAMPLES]] if example else []
    examples = [Example(e) if isinstance(e, str) else e for e in examples]
    examples = [replace(e, text=one_line(e.text)) for e in examples]
    text = one_line(message.replace("{n}", str(len(cases))))
    return [Finding(severity, check, split, len(cases), text, one_line(advice), examples)]
