"""The backbone: a torchvision classification network cut at C5, returning C3, C4 and C5."""

from __future__ import annotations

from typing import NamedTuple

import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from detector.models.files import download, is_file_name, load_strictly, read_state_dict
from detector.models.norm import norm_layer
from detector.utils.errors import InputError


class Layout(NamedTuple):
    """Where a torchvision network has its stages."""

    last: tuple[str, str, str]
    """The last layers at strides 8, 16 and 32, whose outputs are C3, C4 and C5."""
    channels: tuple[int, int, int]
    """Channels of those."""
    stem_ends: str
    """The first layer at stride 8; what comes before it is the stem."""


_RESNET = ("layer2", "layer3", "layer4")
BACKBONES = {
    "resnet18": Layout(_RESNET, (128, 256, 512), "layer2"),
    "resnet34": Layout(_RESNET, (128, 256, 512), "layer2"),
    "resnet50": Layout(_RESNET, (512, 1024, 2048), "layer2"),
    "resnet101": Layout(_RESNET, (512, 1024, 2048), "layer2"),
    "resnext50_32x4d": Layout(_RESNET, (512, 1024, 2048), "layer2"),
    "mobilenet_v3_large": Layout(("6", "12", "16"), (40, 112, 960), "4"),
}


class Backbone(IntermediateLayerGetter):
    """images (N, 3, H, W) → {"0": C3 (N, C, H/8, W/8), "1": C4, "2": C5}; H and W are multiples of `stride`.

    channels: those of C3, C4, C5. stride: of C5, in pixels.
    Parameters have torchvision's names (`conv1.weight`, `layer1.0.conv1.weight`, ...).
    """

    stride = 32

    def __init__(self, trunk: nn.Module, layout: Layout) -> None:
        super().__init__(trunk, {layer: str(level) for level, layer in enumerate(layout.last)})
        self.channels = list(layout.channels)
        self.stem_ends = layout.stem_ends

    def freeze_stem(self) -> None:
        """No gradient for the parameters before stride 8 (of a ResNet: conv1, bn1 and layer1)."""
        for name, child in self.named_children():
            if name == self.stem_ends:
                return
            child.requires_grad_(False)


def build_backbone(name: str, *, weights: str | None, norm: str, freeze_stem: bool) -> Backbone:
    """The network `name`, one of BACKBONES.

    weights: None (random), a name in torchvision's enum for the network (DEFAULT, IMAGENET1K_V1, ...), or a
        local file (.pth, .pt, .safetensors) with torchvision's classification state dict, whose classifier
        is ignored.
    norm: frozen | batch | sync | group. Frozen statistics keep the eps they were trained with.
    freeze_stem: call `Backbone.freeze_stem`, as the published recipes do when starting from ImageNet.
    Raises InputError: unknown names (with the valid ones), unreadable or unfitting weights, failed download.
    """
    if name not in BACKBONES:
        raise InputError(f"unknown backbone {name!r}; valid: {', '.join(BACKBONES)}")
    # torchvision trains MobileNetV3 with eps 0.001; with another, its statistics make another network.
    eps = 1e-3 if name.startswith("mobilenet") else 1e-5
    network = torchvision.models.get_model(name, weights=None, norm_layer=norm_layer(norm, eps=eps))
    backbone = Backbone(getattr(network, "features", network), BACKBONES[name])
    if weights is not None:
        _load(backbone, name=name, weights=weights, norm=norm)
    if freeze_stem:
        backbone.freeze_stem()
    return backbone


def _load(backbone: Backbone, *, name: str, weights: str, norm: str) -> None:
    if norm == "group":
        raise InputError(
            "norm 'group' cannot start from weights trained with batch norm; "
            "set model.backbone.weights to null, or the norm to frozen, batch or sync"
        )
    state = {
        key.removeprefix("features."): tensor
        for key, tensor in _read(name, weights).items()
        if not key.startswith(("fc.", "classifier."))
    }
    load_strictly(backbone, state, source=weights)


def _read(name: str, weights: str) -> dict[str, Tensor]:
    if is_file_name(weights):
        return read_state_dict(weights)
    enum = torchvision.models.get_model_weights(name)
    member = weights.removeprefix(f"{enum.__name__}.")
    if member not in enum.__members__:
        valid = ", ".join(enum.__members__)
        raise InputError(f"{name} has no weights {weights!r}; valid: {valid}, a file (.pth, .safetensors), or null")
    return download(enum[member], setting="model.backbone.weights")
