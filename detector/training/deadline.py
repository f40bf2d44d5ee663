"""The time limit of a training, `train.max_hours`."""

from __future__ import annotations

import math
import time


class Deadline:
    """`hours` from now; None: never."""

    def __init__(self, hours: float | None):
        self.end = math.inf if hours is None else time.monotonic() + 3600 * hours

    def is_over(self) -> bool:
        return time.monotonic() >= self.end
