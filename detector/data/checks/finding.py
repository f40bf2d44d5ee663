"""A finding: one kind of problem of a dataset, with its severity, how often it occurs, examples and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from detector.utils.text import one_line

# error: training refuses the dataset, or learns wrong things. warning: look at it. note: good to know.
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")  # the worst first

EXAMPLES = 5
_EITHER = re.compile(r"\{(\w+)\|(\w+)\}")


@dataclass(frozen=True)
class Example:
    """One case of a finding."""

    text: str  # which case: `annotation 17 (image a.jpg): [x, y, w, h] = ...`
    file_name: str | None = None  # of the image to look at, relative to the folder of the (first) split
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # xywh in pixels, to draw on that image
    beside: tuple[str, str] | None = None  # split and file name of another image to look at: the second of a pair


@dataclass(frozen=True)
class Finding:
    """One kind of problem in one split."""

    severity: Severity
    check: str  # the check's short name, such as zero-size
    split: str  # train, val, test; or `train and val`
    count: int  # how often it occurs
    message: str  # what is wrong
    advice: str  # what to do about it
    examples: list[Example] = field(default_factory=list)
    unit: str = "time"  # what `count` counts, in the singular

    @property
    def repairable(self) -> bool:
        """Whether --fix repairs it, or drops what is wrong: then the advice says so."""
        return "--fix" in self.advice

    def sentence(self) -> str:
        """What is wrong, its first example and what to do, for an error message."""
        first = f"{': ' if self.count == 1 else ', the first: '}{self.examples[0].text}" if self.examples else ""
        return f"{self.message}{first}; {self.advice}"


def found(
    severity: Severity,
    check: str,
    split: str,
    cases: Sequence[Any] | np.ndarray,
    message: str,
    advice: str,
    example: Callable[[Any], Example | str] | None = str,
    unit: str = "time",
) -> list[Finding]:
    """A list of the one finding that these cases make; an empty list if there is no case.

    message: `{n}` in it becomes the number of cases, and of `{is|are}` the first word if that is 1, else the second.
    example: describes a case; the first EXAMPLES cases are described. None = the message says it all.
    unit: what a case is, such as group.
    Every text is made one line (`one_line`), since it may quote what somebody wrote into a file.
    """
    if len(cases) == 0:
        return []
    agreeing = _EITHER.sub(lambda words: words[1 if len(cases) == 1 else 2], message)
    text = one_line(agreeing.replace("{n}", str(len(cases))))
    examples = [_as_example(example(case)) for case in cases[:EXAMPLES]] if example else []
    return [Finding(severity, check, split, len(cases), text, one_line(advice), examples, unit)]


def _as_example(example: Example | str) -> Example:
    example = Example(example) if isinstance(example, str) else example
    return replace(example, text=one_line(example.text))
