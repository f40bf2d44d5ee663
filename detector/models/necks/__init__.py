"""Necks: from the backbone's C3..C5 to the pyramid P3..P7, or from C2..C5 to P2..P7. To add one: a file here, a line in
NECKS, and its settings in config/model.py:NeckConfig."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from detector.config.model import NeckConfig
from detector.models.necks.fpn import build_fpn
from detector.models.necks.pafpn import build_pafpn
from detector.utils.nearest import lookup

NECKS: dict[str, Callable[[list[int], NeckConfig], nn.Module]] = {
    "fpn": build_fpn,
    "pafpn": build_pafpn,
}


def build_neck(in_channels: list[int], config: NeckConfig) -> nn.Module:
    """The neck that `model.neck` describes: C3, C4, C5 (a dict, as Backbone returns it) → an ordered dict of P3..P7;
    with config.finest "p2", C2 to C5 → P2..P7.

    in_channels: of C3, C4, C5, with C2's before them where the pyramid begins with P2. Each level is
    (N, config.channels, h, w), the finest first.
    Raises InputError on a name that is not in NECKS.
    """
    return lookup(NECKS, config.name, "model.neck.name")(in_channels, config)
