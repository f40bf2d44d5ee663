"""Warnings about classes that the training neglects, from an epoch's figures per class.

The figures are those of detector.losses.class_statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detector.config.schema import Config
from detector.evaluation.report.curves import LOW_SCORE
from detector.losses.classification.base import ClassificationLoss
from detector.utils.text import counted

# Below LOW_SCORE, a class's mean score on its own objects is worth a warning, once some class has reached LEARNT. In
# the first epochs all scores are near the prior (0.01) and say nothing.
LEARNT = 0.3
# Below this ratio of positive to negative gradient, a class's scores are being pushed down. A low ratio alone
# means no problem: cross entropy starts at 0.7 for the commonest and 0.003 for the rarest class of shapes. A high ratio
# does not mean that a class is learnt: focal loss brings every class to about 1, whatever its scores are.
SUPPRESSED_RATIO = 0.2
MOST_LINES = 3  # classes named per epoch, the lowest scores first


def remedies(config: Config, loss: ClassificationLoss) -> list[str]:
    """Settings that help rare classes and are not in use, as one writes them after CONFIG. The one that helped most
    comes first (docs/imbalance.md)."""
    in_use = {
        "loss.alpha=effective_number": config.loss.alpha_is_by_class
        or loss.balances_classes
        or not loss.takes_alpha_by_class,
        "data.sampling=repeat_factor": config.data.sampling != "uniform",
        "augment.paste={}": config.augment.paste is not None,
    }
    return [setting for setting, used in in_use.items() if not used]


def neglected_classes(per_class: Mapping[str, Mapping[str, Any]], settings_to_try: Sequence[str]) -> list[str]:
    """A line for each neglected class, MOST_LINES at most, and one on what to try; none if all is well.

    per_class: class name → figures, as ClassStatistics.summary gives them. settings_to_try: see `remedies`.
    """
    scores = {name: row["score_positive"] for name, row in per_class.items() if row["score_positive"] is not None}
    if max(scores.values(), default=0) < LEARNT:
        return []
    low = sorted((name for name in scores if scores[name] < LOW_SCORE), key=lambda name: scores[name])
    lines = [_line(name, per_class[name]) for name in low[:MOST_LINES]]
    if len(low) > MOST_LINES:
        more = counted(len(low) - MOST_LINES, "more class")
        lines.append(f"hardly learnt, too: {more} with scores below {LOW_SCORE:g}")
    if low:
        settings = ", ".join(settings_to_try)
        lines.append(f"try one of these: {settings or 'more images with objects of these classes'}")
    return lines


def _line(name: str, row: Mapping[str, Any]) -> str:
    ratio = row["gradient_ratio"]
    text = f"`{name}` is hardly learnt: it scores {row['score_positive']:.2g} on its own objects"
    if ratio is not None and ratio < SUPPRESSED_RATIO:
        return f"{text}, because the other classes and the background push it down (gradient ratio {ratio:.2g})"
    return f"{text} ({counted(row['positives'], 'positive anchor')} this epoch)"
