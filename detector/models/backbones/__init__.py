"""Backbones: networks that give C3, C4 and C5, or C2 to C5. A new source of backbones adds a file and a line in
SOURCES."""

from __future__ import annotations

from typing import Protocol

from detector.models.backbones.backbone import Backbone
from detector.models.backbones.timm import build_timm_backbone
from detector.models.backbones.torchvision import build_torchvision_backbone


class BuildBackbone(Protocol):
    """A source of backbones; the arguments are those of `build_backbone`, the name without its prefix."""

    def __call__(self, name: str, *, weights: str | None, norm: str, finest_stride: int) -> Backbone: ...


# How model.backbone.name begins → what builds the rest of the name; the first that fits.
SOURCES: dict[str, BuildBackbone] = {
    "timm/": build_timm_backbone,
    "": build_torchvision_backbone,
}


def build_backbone(name: str, *, weights: str | None, norm: str, finest_stride: int) -> Backbone:
    """The backbone that `model.backbone.name` names, on torch's default device.

    weights: ImageNet weights, as the source names them; a local file (.pth, .pt, .safetensors) with the state dict of
        the source's classification network, whose classifier is ignored; or None: random.
    norm: frozen | batch | sync | group.
    finest_stride: of the first feature: 8 (C3) or 4 (C2).
    Raises InputError: unknown names, unreadable or unfitting weights, a failed download.
    """
    prefix = next(prefix for prefix in SOURCES if name.startswith(prefix))
    return SOURCES[prefix](name.removeprefix(prefix), weights=weights, norm=norm, finest_stride=finest_stride)
