"""Head, medium and tail: classes grouped by their number of boxes relative to the most common class."""

from __future__ import annotations

import numpy as np

HEAD = 0.5  # head: at least this fraction of the boxes of the most common class
TAIL = 0.1  # tail: less than this fraction
GROUPS = ("head", "medium", "tail")


def class_groups(counts: np.ndarray) -> list[str]:
    """The group of each of K classes with `counts` (K,) training boxes. Classes without boxes belong to the tail."""
    share = np.asarray(counts) / max(1, np.max(counts, initial=0))
    return ["head" if s >= HEAD else "tail" if s < TAIL else "medium" for s in share.tolist()]
