"""The figures of an evaluation as tables of text."""

from __future__ import annotations

from detector.evaluation.metrics.bootstrap import FEW
from detector.evaluation.report.verdict import deployment_sentences
from detector.utils.text import counted, shortened

ROWS = [  # key, figure, IoU, size of the objects, detections an image: as pycocotools prints them
    ("AP", "Average Precision  (AP)", "0.50:0.95", "all", 100),
    ("AP50", "Average Precision  (AP)", "0.50", "all", 100),
    ("AP75", "Average Precision  (AP)", "0.75", "all", 100),
    ("APs", "Average Precision  (AP)", "0.50:0.95", "small", 100),
    ("APm", "Average Precision  (AP)", "0.50:0.95", "medium", 100),
    ("APl", "Average Precision  (AP)", "0.50:0.95", "large", 100),
    ("AR1", "Average Recall     (AR)", "0.50:0.95", "all", 1),
    ("AR10", "Average Recall     (AR)", "0.50:0.95", "all", 10),
    ("AR100", "Average Recall     (AR)", "0.50:0.95", "all", 100),
    ("ARs", "Average Recall     (AR)", "0.50:0.95", "small", 100),
    ("ARm", "Average Recall     (AR)", "0.50:0.95", "medium", 100),
    ("ARl", "Average Recall     (AR)", "0.50:0.95", "large", 100),
]


def coco_table(metrics: dict) -> str:
    """COCO's twelve lines; a figure without an object to measure it on is a dash. metrics: see `coco_figures`."""
    return "\n".join(
        f" {figure} @[ IoU={iou:<9} | area={area:>6s} | maxDets={most:>3d} ] = {_number(metrics[key])}"
        for key, figure, iou, area, most in ROWS
    )


def tables(metrics: dict) -> str:
    """All that is printed of an evaluation. metrics: see `analyse`."""
    parts = [coco_table(metrics), interval_line(metrics), group_table(metrics), per_class_table(metrics)]
    return "\n".join([*parts, *(f" {text}" for _, text in deployment_sentences(metrics))])


def interval_line(metrics: dict) -> str:
    """The 95 % interval of AP, in a sentence. metrics: see `analyse`."""
    interval = metrics["intervals"]["AP"]
    if interval is None:
        return " too few images to say how sure AP is"
    images = counted(metrics["images"], "image")
    return f" AP is in {_interval(interval)} with 95 % confidence, as far as {images} can tell"


def group_table(metrics: dict) -> str:
    """A line for each of head, medium and tail that has classes. metrics: see `analyse`."""
    lines = [f" {'group':<8} classes     AP       95 %         AP50  (by {metrics['grouped_by']})"]
    for group, row in metrics["groups"].items():
        if row["classes"]:
            names = shortened(row["classes"], 5)
            lines.append(
                f" {group:<8} {len(row['classes']):>7d}  {_number(row['AP'])}  {_interval(row['interval'])}"
                f"  {_number(row['AP50'])}  {names}"
            )
    return "\n".join(lines)


def per_class_table(metrics: dict) -> str:
    """A line for each class, the commonest first, so that the rare ones stand together at the end. metrics: see
    `analyse`."""
    classes = sorted(metrics["per_class"].items(), key=lambda item: -item[1]["num_gt"])
    width = max([len("class"), *(len(name) for name, _ in classes)])
    lines = [f" {'class':<{width}}  objects     AP   AP50        95 %         score  precision  recall"]
    for name, row in classes:
        lines.append(
            f" {name:<{width}}  {row['num_gt']:>7d}  {_number(row['AP'])}  {_number(row['AP50'])}"
            f"  {_interval(row['interval'])}  {row['threshold']:>6.3f}{'*' if _is_borrowed(row) else ' '}"
            f"    {row['precision']:>6.3f}  {row['recall']:>6.3f}{_mark(row)}"
        )
    if not all(row["conclusive"] for _, row in classes):
        lines.append(f" few: fewer than {FEW} objects here, so nothing is to be concluded from this class")
    if any(_is_borrowed(row) for _, row in classes):
        lines.append(" *: not chosen on objects of this class, for want of them, but for all classes together")
    return "\n".join(lines)


def _is_borrowed(row: dict) -> bool:
    return row["chosen"] and not row["own"]


def _mark(row: dict) -> str:
    if not row["conclusive"]:
        return "  few"
    return "" if row["works"] else "  fails"


def _interval(interval: list[float] | None) -> str:
    return "      -       " if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _number(value: float) -> str:
    return "    -" if value < 0 else f"{value:.3f}"
