"""torchvision's classification networks as backbones, cut off after C5."""

from __future__ import annotations

from typing import NamedTuple

import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from detector.models.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD, LEVELS, Backbone
from detector.models.norm import norm_layer
from detector.models.state_dict import download, is_file_name, load_strictly, read_state_dict
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean


class Layout(NamedTuple):
    """Where a torchvision network has its stages."""

    last: tuple[str, str, str, str]
    """The last layers at strides 4, 8, 16 and 32, whose outputs are C2 to C5."""
    channels: tuple[int, int, int, int]
    """Channels of C2 to C5."""
    first_stage: str
    """The layer that the stages begin with; those before it are the stem."""
    stride_8: str
    """The first layer at stride 8."""


_RESNET = ("layer1", "layer2", "layer3", "layer4")
BACKBONES = {
    "resnet18": Layout(_RESNET, (64, 128, 256, 512), "layer1", "layer2"),
    "resnet34": Layout(_RESNET, (64, 128, 256, 512), "layer1", "layer2"),
    "resnet50": Layout(_RESNET, (256, 512, 1024, 2048), "layer1", "layer2"),
    "resnet101": Layout(_RESNET, (256, 512, 1024, 2048), "layer1", "layer2"),
    "resnext50_32x4d": Layout(_RESNET, (256, 512, 1024, 2048), "layer1", "layer2"),
    "mobilenet_v3_large": Layout(("3", "6", "12", "16"), (24, 40, 112, 960), "1", "4"),
}


class TorchvisionBackbone(Backbone, IntermediateLayerGetter):
    """A Backbone whose parameters have torchvision's names (`conv1.weight`, `layer1.0.conv1.weight`, ...).

    trunk: the network's layers in order, as children; what follows the last of `layout` is cut off.
    finest_stride: of the first feature: 8 (C3) or 4 (C2).
    """

    stride = 32
    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(self, trunk: nn.Module, layout: Layout, finest_stride: int) -> None:
        finest = LEVELS.index(finest_stride)
        super().__init__(trunk, {layer: str(level) for level, layer in enumerate(layout.last[finest:])})
        self.channels = list(layout.channels[finest:])
        layers: list[str] = list(self)
        first = layers.index(layout.first_stage)
        self.stages = {"stem": layers[:first], **{layer: [layer] for layer in layers[first:]}}
        self.before_stride_8 = list(self.stages)[: list(self.stages).index(layout.stride_8)]

    def from_classifier(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """As in Backbone."""
        return {
            name.removeprefix("features."): tensor
            for name, tensor in state.items()
            if not name.startswith(("fc.", "classifier."))
        }


def build_torchvision_backbone(name: str, *, weights: str | None, norm: str, finest_stride: int) -> TorchvisionBackbone:
    """torchvision's network `name`, one of BACKBONES.

    weights: None (random); a name in torchvision's enum of the network (DEFAULT, IMAGENET1K_V1, ...); or a local file
        (.pth, .pt, .safetensors) with torchvision's classification state dict, whose classifier is ignored.
    norm: frozen | batch | sync | group. Frozen statistics keep the eps they were trained with.
    finest_stride: of the first feature: 8 (C3) or 4 (C2).
    Raises InputError: unknown names, unreadable or unfitting weights, a failed download.
    """
    if name not in BACKBONES:
        hint = did_you_mean(name, [*BACKBONES, "timm/<any network of timm>"])
        raise InputError(f"model.backbone.name: no {name!r}; {hint}")
    # torchvision trains MobileNetV3 with eps 0.001; its statistics are wrong for any other.
    eps = 1e-3 if name.startswith("mobilenet") else 1e-5
    network = torchvision.models.get_model(name, weights=None, norm_layer=norm_layer(norm, eps=eps))
    backbone = TorchvisionBackbone(getattr(network, "features", network), BACKBONES[name], finest_stride)
    if weights is not None:
        if norm == "group":
            raise InputError(
                "model.backbone.norm: group cannot start from weights trained with batch norm; "
                "set model.backbone.weights to null, or the norm to frozen, batch or sync"
            )
        load_strictly(backbone, backbone.from_classifier(_read(name, weights)), source=weights)
    return backbone


def _read(name: str, weights: str) -> dict[str, Tensor]:
    """The state dict of the classification network `name`."""
    if is_file_name(weights):
        return read_state_dict(weights)
    enum = torchvision.models.get_model_weights(name)
    member = weights.removeprefix(f"{enum.__name__}.")
    if member not in enum.__members__:
        valid = ", ".join(enum.__members__)
        raise InputError(
            f"model.backbone.weights: {name} has no {weights!r}; valid: {valid}, a file (.pth, .safetensors), or null"
        )
    return download(enum[member], setting="model.backbone.weights")
