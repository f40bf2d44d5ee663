"""Head, medium and tail: classes by how many boxes they have beside the commonest. One definition for all figures."""

from __future__ import annotations

import numpy as np

HEAD = 0.5  # of the boxes of the commonest class, at least
TAIL = 0.1  # ... less than this
GROUPS = ("head", "medium", "tail")


def class_groups(counts: np.ndarray) -> list[str]:
    """The group of each of K classes with `counts` (K,) training boxes; one without any is of the tail."""
    share = np.asarray(counts) / max(1, np.max(counts, initial=0))
    return ["head" if s >= HEAD else "tail" if s < TAIL else "medium" for s in share.tolist()]
