"""What an epoch's figures of every class say: sentences where one is left behind, and a picture over the epochs.

The figures are those of `detector.losses.class_statistics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detector.config.schema import Config
from detector.evaluation.report.curves import LOW_SCORE

# A class is reported when its mean score on its own objects stays below LOW_SCORE while some class has got to LEARNT:
# before that, in the first epochs, all scores are near the prior (0.01) and say nothing.
LEARNT = 0.3
# Below this ratio of positive to negative gradient its scores are being pushed down. A low ratio alone is no alarm
# (cross entropy starts at 0.7 for the commonest and 0.003 for the rarest class of shapes), nor is a high one a comfort:
# focal loss brings all classes back to about 1, wherever their scores are.
SUPPRESSED_RATIO = 0.2
MOST_LINES = 3  # classes named in an epoch, the lowest scores first


def remedies(config: Config) -> list[str]:
    """Settings, as one writes them after CONFIG, that help rare classes and that are not in use; what was measured to
    help most comes first (docs/imbalance.md)."""
    in_use = {
        "loss.alpha=effective_number": isinstance(config.loss.alpha, (list, str))
        or config.loss.classification in ("equalized_focal", "quality_focal", "varifocal"),
        "data.sampling=repeat_factor": config.data.sampling != "uniform",
        "augment.paste={}": config.augment.paste is not None,
    }
    return [setting for setting, used in in_use.items() if not used]


def warnings_of(per_class: Mapping[str, Mapping], settings_to_try: Sequence[str]) -> list[str]:
    """A line for each class that is left behind, MOST_LINES at most, and one about what to try; none if all is well.

    per_class: class name → figures, as in ClassStatistics.summary. settings_to_try: see `remedies`.
    """
    scores = {name: row["score_positive"] for name, row in per_class.items() if row["score_positive"] is not None}
    if max(scores.values(), default=0) < LEARNT:
        return []
    behind = sorted((name for name in scores if scores[name] < LOW_SCORE), key=lambda name: scores[name])
    lines = [_sentence(name, per_class[name]) for name in behind[:MOST_LINES]]
    if len(behind) > MOST_LINES:
        lines.append(f"and {len(behind) - MOST_LINES} more classes with a mean score below {LOW_SCORE:g}")
    if behind:
        settings = ", ".join(settings_to_try)
        lines.append(f"what may help, one at a time: {settings or 'more images with objects of these classes'}")
    return lines


def _sentence(name: str, row: Mapping) -> str:
    ratio = row["gradient_ratio"]
    text = "" if ratio is None else f"gradient ratio {ratio:.2g}, "
    text += f"mean score on its own objects {row['score_positive']:.2g}"
    if ratio is not None and ratio < SUPPRESSED_RATIO:
        return f"`{name}`: {text}: it is being suppressed"
    return f"`{name}`: {text}, from {row['positives']} positive anchors: it is left behind"
