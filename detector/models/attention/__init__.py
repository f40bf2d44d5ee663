"""Attention between neck and head: what refines the pyramid levels together. To add one: a file here, a line in
ATTENTIONS, and its settings in config/model.py:AttentionConfig. A block says in `starts_as_identity` whether a head
that was trained without it keeps its outputs at the start."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from detector.config.model import AttentionConfig
from detector.models.attention.dyhead import DyHeadBlock
from detector.models.attention.light import LightBlock
from detector.utils.nearest import lookup

ATTENTIONS: dict[str, Callable[[int, AttentionConfig], nn.Module]] = {
    "none": lambda channels, config: nn.Identity(),
    "light": lambda channels, config: nn.Sequential(*(LightBlock(channels) for _ in range(config.blocks))),
    "dyhead": lambda channels, config: nn.Sequential(*(DyHeadBlock(channels) for _ in range(config.blocks))),
}


def build_attention(channels: int, config: AttentionConfig) -> nn.Module:
    """The attention that `model.attention` describes: a list of pyramid levels → a list of the same shapes.

    Levels are (N, channels, h, w), the finest first, each with half the rows and columns of the one before, rounded up.
    There may be any number of them. Raises InputError on a name that is not in ATTENTIONS.
    """
    return lookup(ATTENTIONS, config.name, "model.attention.name")(channels, config)
