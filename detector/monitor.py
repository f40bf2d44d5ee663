"""What an epoch's figures of every class say: sentences where one is left behind, and a picture over the epochs.

The figures are those of `detector.losses.class_statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from detector.config import Config
from detector.utils.records import read_records
from detector.utils.whole import replacing

# A class is reported when its mean score on its own objects stays below LOW_SCORE while some class has got to LEARNT:
# before that, in the first epochs, all scores are near the prior (0.01) and say nothing.
LOW_SCORE = 0.1
LEARNT = 0.3
# Below this ratio of positive to negative gradient its scores are being pushed down. A low ratio alone is no alarm
# (cross entropy starts at 0.7 for the commonest and 0.003 for the rarest class of shapes), nor is a high one a comfort:
# focal loss brings all classes back to about 1, wherever their scores are.
SUPPRESSED_RATIO = 0.2
MOST_LINES = 3  # classes named in an epoch, the lowest scores first

RAREST, COMMONEST = 6, 6  # classes drawn where there are more


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


def plot_classes(metrics_file: Path, picture: Path) -> None:
    """Gradient ratio, score on own objects and loss share of each class against epochs, from a run's metrics.jsonl, as
    a PNG: the rarest half of the classes in colour, the others in grey; of more than RAREST + COMMONEST only those.

    Without figures of classes in the file, no picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    lines = read_records(metrics_file)
    epochs = [line for line in lines if line["kind"] == "classes"]
    if not epochs:
        return
    positives = {name: sum(e["per_class"][name]["positives"] for e in epochs) for name in epochs[-1]["per_class"]}
    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = dict(zip(("gradient_ratio", "score_positive", "loss_share"), figure.subplots(1, 3), strict=True))
    for name, style in _styles(positives).items():
        label = f"{name} ({positives[name] / len(epochs):.0f})".replace("$", r"\$")  # not a formula
        label = f" {label}" if label.startswith("_") else label  # which would not be in the legend
        for key, panel in panels.items():
            values = [e["per_class"][name][key] for e in epochs]
            values = [math.nan if value is None else value for value in values]
            panel.plot([e["epoch"] for e in epochs], values, label=label, **style)
    panels["gradient_ratio"].set(title="gradient ratio, positive / negative", yscale="log")
    panels["gradient_ratio"].axhline(1, color="black", linewidth=0.8, linestyle=":")
    panels["score_positive"].set(title="mean score on own objects", ylim=(0, 1))
    panels["score_positive"].axhline(LOW_SCORE, color="black", linewidth=0.8, linestyle=":")
    panels["loss_share"].set(title="share of the classification loss", ylim=(0, None))
    for panel in panels.values():
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    handles, labels = panels["loss_share"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", title="class (positive\nanchors an epoch)", fontsize=8)
    with replacing(picture) as file:
        figure.savefig(file, format="png", dpi=100)


def _styles(positives: Mapping[str, int]) -> dict[str, dict]:
    """Class → how its line is drawn, for the classes that are drawn, the commonest first."""
    order = sorted(positives, key=lambda name: -positives[name])
    if len(order) > RAREST + COMMONEST:
        order = order[:COMMONEST] + order[-RAREST:]
    common = order[: len(order) - min(RAREST, math.ceil(len(order) / 2))]
    styles = {}
    for i, name in enumerate(common):
        styles[name] = {"color": str(0.75 - 0.4 * i / len(common)), "linewidth": 1, "linestyle": ("-", "--")[i % 2]}
    for i, name in enumerate(order[len(common) :]):
        styles[name] = {"color": f"C{i}", "linewidth": 2, "marker": "o", "markersize": 3, "zorder": 3}
    return styles
