"""What was trained on what: the first rows of a report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TypedDict

from detector.config.data import ShortLong
from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.evaluation.report.history import data_findings, training_time
from detector.utils.text import counted


class Provenance(TypedDict):
    """The title of a report, its first rows (label, text), and what was found in the data, a sentence each."""

    title: str
    rows: list[tuple[str, str]]
    findings: list[str]


def provenance(
    config: Config, source: str, class_counts: list[int] | None, data: CocoData, split: str, curves: Sequence[dict] = ()
) -> Provenance:
    """What was trained on what, in words.

    source: what the detector was loaded from. class_counts: K training boxes of each class; None = unknown.
    data: the split that the evaluation is of. split: its name. curves: the lines of the run's metrics.jsonl.
    """
    model, train, loss, transforms = config.model, config.train, config.loss, config.augment.transforms
    boxes = f": {counted(sum(class_counts), 'box')} of {counted(len(class_counts), 'class')}" if class_counts else ""
    lr = "" if train.lr is None else f", lr {train.lr:g}"  # a run's config has a number
    epochs, objects = counted(train.epochs, "epoch"), counted(data.class_counts().sum(), "object")
    batch = f"{train.batch_size} x {train.accumulate}" if train.accumulate > 1 else f"{train.batch_size}"
    pixels = _pixels(config.data.image_size)
    neck = f"{model.neck.name.upper()} {model.neck.channels}{' from P2' if model.neck.finest == 'p2' else ''}"
    attention = model.attention
    attends = f", attention {attention.name} x {attention.blocks}" if attention.name != "none" else ""
    weighting = f" weighted by {loss.box_weighting}" if loss.box_weighting != "assigner" else ""
    today, trained = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC", training_time(curves)
    rows = {
        "Detector": source,
        "Trained on": f"{config.data.dataset}{boxes}",
        "Evaluated on": f"{split}: {counted(len(data), 'image')} with {objects}, {today}",
        "Network": f"{model.backbone.name}, {neck}{attends}, head {model.head.depth} x {model.head.width}",
        "Started from": model.weights or f"backbone {model.backbone.weights or 'from scratch'}",
        "Images": f"{pixels}, augmentation {transforms if isinstance(transforms, str) else 'custom'}",
        "Training": f"{epochs}, batches of {batch}, {train.optimizer}{lr}, {train.schedule}",
        "Trained": f"{f'{trained}, ' if trained else ''}seed {config.seed}",
        "Loss": f"{loss.classification}, gamma {loss.gamma}, box {loss.box}{weighting}, assigner {loss.assigner.name}",
        "For the rare classes": ", ".join(_for_rare_classes(config)),
    }
    return {"title": Path(source).name or source, "rows": list(rows.items()), "findings": data_findings(curves)}


def _pixels(size: int | ShortLong) -> str:
    if isinstance(size, int):
        return f"{size} px"
    short = f"{size.least} to {size.greatest}" if size.least < size.greatest else f"{size.greatest}"
    return f"{short} px, at most {size.long}"


def _for_rare_classes(config: Config) -> list[str]:
    settings = [f"sampling {config.data.sampling}"]
    if config.augment.paste:
        settings.append("pasting of rare objects")
    if config.loss.alpha_is_by_class:
        settings.append(f"alpha {config.loss.alpha if isinstance(config.loss.alpha, str) else 'by class'}")
    return settings
