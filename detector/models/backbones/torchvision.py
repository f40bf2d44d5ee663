"""The backbone: a classification network cut at C5, returning C3, C4 and C5. Here torchvision's; timm's next door."""

from __future__ import annotations

from typing import NamedTuple

import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from detector.models.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone
from detector.models.norm import norm_layer
from detector.models.state_dict import download, is_file_name, load_strictly, read_state_dict
from detector.utils.errors import InputError


class Layout(NamedTuple):
    """Where a torchvision network has its stages."""

    last: tuple[str, str, str]
    """The last layers at strides 8, 16 and 32, whose outputs are C3, C4 and C5."""
    channels: tuple[int, int, int]
    """Channels of those."""
    first_stage: str
    """The first layer that is a stage; what comes before it is the stem."""
    stride_8: str
    """The first layer at stride 8."""


_RESNET = ("layer2", "layer3", "layer4")
BACKBONES = {
    "resnet18": Layout(_RESNET, (128, 256, 512), "layer1", "layer2"),
    "resnet34": Layout(_RESNET, (128, 256, 512), "layer1", "layer2"),
    "resnet50": Layout(_RESNET, (512, 1024, 2048), "layer1", "layer2"),
    "resnet101": Layout(_RESNET, (512, 1024, 2048), "layer1", "layer2"),
    "resnext50_32x4d": Layout(_RESNET, (512, 1024, 2048), "layer1", "layer2"),
    "mobilenet_v3_large": Layout(("6", "12", "16"), (40, 112, 960), "1", "4"),
}


class TorchvisionBackbone(Backbone, IntermediateLayerGetter):
    """A Backbone whose parameters have torchvision's names (`conv1.weight`, `layer1.0.conv1.weight`, ...)."""

    stride = 32
    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(self, trunk: nn.Module, layout: Layout) -> None:
        super().__init__(trunk, {layer: str(level) for level, layer in enumerate(layout.last)})
        self.channels = list(layout.channels)
        layers = list(self)
        first = layers.index(layout.first_stage)
        self.stages = {"stem": layers[:first], **{layer: [layer] for layer in layers[first:]}}
        self.before_stride_8 = list(self.stages)[: list(self.stages).index(layout.stride_8)]

    def from_classifier(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name.removeprefix("features."): tensor
            for name, tensor in state.items()
            if not name.startswith(("fc.", "classifier."))
        }


def build_backbone(name: str, *, weights: str | None, norm: str) -> TorchvisionBackbone:
    """torchvision's network `name`, one of BACKBONES.

    weights: None (random), a name in torchvision's enum for the network (DEFAULT, IMAGENET1K_V1, ...), or a
        local file (.pth, .pt, .safetensors) with torchvision's classification state dict, whose classifier
        is ignored.
    norm: frozen | batch | sync | group. Frozen statistics keep the eps they were trained with.
    Raises InputError: unknown names (with the valid ones), unreadable or unfitting weights, failed download.
    """
    if name not in BACKBONES:
        raise InputError(f"unknown backbone {name!r}; valid: {', '.join(BACKBONES)}, timm/<any timm model>")
    # torchvision trains MobileNetV3 with eps 0.001; with another, its statistics make another network.
    eps = 1e-3 if name.startswith("mobilenet") else 1e-5
    network = torchvision.models.get_model(name, weights=None, norm_layer=norm_layer(norm, eps=eps))
    backbone = TorchvisionBackbone(getattr(network, "features", network), BACKBONES[name])
    if weights is not None:
        _load(backbone, name=name, weights=weights, norm=norm)
    return backbone


def _load(backbone: Backbone, *, name: str, weights: str, norm: str) -> None:
    if norm == "group":
        raise InputError(
            "norm 'group' cannot start from weights trained with batch norm; "
            "set model.backbone.weights to null, or the norm to frozen, batch or sync"
        )
    load_strictly(backbone, backbone.from_classifier(_read(name, weights)), source=weights)


def _read(name: str, weights: str) -> dict[str, Tensor]:
    if is_file_name(weights):
        return read_state_dict(weights)
    enum = torchvision.models.get_model_weights(name)
    member = weights.removeprefix(f"{enum.__name__}.")
    if member not in enum.__members__:
        valid = ", ".join(enum.__members__)
        raise InputError(f"{name} has no weights {weights!r}; valid: {valid}, a file (.pth, .safetensors), or null")
    return download(enum[member], setting="model.backbone.weights")
