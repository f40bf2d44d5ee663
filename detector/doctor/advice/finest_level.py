"""Whether a finer level of the pyramid reaches objects that are too small for the image size."""

from __future__ import annotations

from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.doctor.advice.enlarge import WORTHWHILE, reached_share
from detector.doctor.reach.reach import Reach, measure_reach


def finest_level(train: CocoData, config: Config, reach: Reach) -> list[str]:
    """A sentence on `model.neck.finest: p2`, if anchors reach clearly more of the objects with it; else nothing.

    The advice names it and does not set it, because it multiplies the work of the head. reach: of `train` with
    `config`, whose image size is already as large as is worthwhile.
    """
    before = reached_share(reach) if len(reach.best_iou) else 1.0
    if before > 1 - WORTHWHILE:
        return []
    after = reached_share(measure_reach(train, config.changed({"model.neck.finest": "p2"})))
    if after < before + WORTHWHILE:
        return []
    return [
        f"small objects: with model.neck.finest=p2, a cell every 4 px instead of 8, anchors reach {after:.0%} of the "
        f"objects instead of {before:.0%}, for four times the work of the head"
    ]
