"""COCO metrics as text."""

from __future__ import annotations

ROWS = [  # key, figure, IoU, area, detections an image: as pycocotools prints them
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
    """The twelve lines everybody knows; a figure with nothing to measure is a dash."""
    return "\n".join(
        f" {figure} @[ IoU={iou:<9} | area={area:>6s} | maxDets={most:>3d} ] = {_number(metrics[key])}"
        for key, figure, iou, area, most in ROWS
    )


def per_class_table(metrics: dict) -> str:
    """A line a class, most objects first, so that the rare ones stand together at the end."""
    classes = sorted(metrics["per_class"].items(), key=lambda item: -item[1]["num_gt"])
    width = max([len("class"), *(len(name) for name, _ in classes)])
    lines = [f" {'class':<{width}}  objects     AP   AP50"]
    lines += [
        f" {name:<{width}}  {row['num_gt']:>7d}  {_number(row['AP'])}  {_number(row['AP50'])}" for name, row in classes
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return "    -" if value < 0 else f"{value:.3f}"
