"""Whether a finer level of the pyramid reaches objects that are too small for the image size."""

from __future__ import annotations

from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.doctor.advice.config_text import one_line_yaml
from detector.doctor.advice.enlarge import WORTHWHILE, reached_share
from detector.doctor.reach.reach import Reach, measure_reach


def finest_level(train: CocoData, config: Config, reach: Reach) -> list[str]:
    """A sentence on `model.neck.finest: p2`, if anchors reach clearly more of the objects with it; else nothing.

    The advice names it and does not set it, because it multiplies the work of the head. Anchors that fit P3 may not fit
    P2: where others are better there, the sentence names these, too. reach: of `train` with `config`, whose image size
    is already as large as is worthwhile.
    """
    before = reached_share(reach) if len(reach.best_iou) else 1.0
    if before > 1 - WORTHWHILE:
        return []
    advised = reach.proposal.anchors if reach.proposal else config.model.anchors
    finer = measure_reach(train, config.changed({"model.neck.finest": "p2", "model.anchors": advised}))
    after = reached_share(finer)
    if after < before + WORTHWHILE:
        return []
    changes = "model.neck.finest=p2"
    if finer.proposal:
        changes += f" and model.anchors={one_line_yaml(finer.proposal.anchors.model_dump(exclude={'rule'}))}"
    return [
        f"small objects: with {changes}, a cell every 4 px instead of 8, anchors reach {after:.0%} of the objects "
        f"instead of {before:.0%}, for four times the work of the head"
    ]
