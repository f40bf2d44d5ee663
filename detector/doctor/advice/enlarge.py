"""Whether to feed small images enlarged: where their own pixels limit the size, and anchors reach more objects then."""

from __future__ import annotations

import numpy as np

from detector.config.data import ShortLong
from detector.config.schema import Config
from detector.data.coco import CocoData
from detector.doctor.advice.image_size import MULTIPLE
from detector.doctor.advice.setting import Setting
from detector.doctor.reach.reach import Reach, measure_reach

WORTHWHILE = 0.05  # what enlarging must add to the share of objects reached: an epoch takes longer by its square
NEARLY = 0.02  # a smaller size that reaches no less than this below the best is preferred
FACTORS = (1.25, 1.5, 2)  # of the images' own long side; beyond, an image is mostly interpolated
MOST = {False: 640, True: 1344}  # pixels of the long side without, and with a GPU


def enlarge(train: CocoData, config: Config, reach: Reach, gpu: bool) -> Setting | None:
    """A larger data.image_size than that of `config`, if the images have no more pixels and it is worthwhile.

    reach: of `train` with `config`. Anchors that fit the larger objects are reckoned with, as at the present size.
    """
    size = config.data.image_size
    assert isinstance(size, ShortLong)  # as `choose_image_size` gives it
    own = float(np.median(np.maximum(train.heights, train.widths)))
    if size.long + MULTIPLE <= own or not len(reach.best_iou):
        return None
    longs = sorted({min(round(own * factor / MULTIPLE) * MULTIPLE, MOST[gpu]) for factor in FACTORS})
    shares = {}
    for long in [long for long in longs if long > size.long]:
        larger = {"short": max(1, round(size.greatest * long / size.long)), "long": long}
        shares[long] = larger, reached_share(measure_reach(train, config.changed({"data.image_size": larger})))
    before, best = reached_share(reach), max((share for _, share in shares.values()), default=0.0)
    if best < before + WORTHWHILE:
        return None
    larger, after = next((larger, share) for larger, share in shares.values() if share >= best - NEARLY)
    why = (
        f"enlarged from {own:.0f} px: anchors reach {after:.0%} of the objects instead of {before:.0%} at {size.long}, "
        f"for {(larger['long'] / size.long) ** 2:.1f} times the time an image takes"
    )
    return Setting("data.image_size", larger, why)


def reached_share(reach: Reach) -> float:
    """The share of all objects that the best anchors known reach."""
    share = reach.proposal.after if reach.proposal else reach.reached
    return float(np.nansum(share * reach.boxes) / reach.boxes.sum())
