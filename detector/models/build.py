"""The only wiring: from the `model` section of the config to the detector."""

from __future__ import annotations

import logging

import torch

from detector.config.schema import Config, ModelConfig, PostprocessConfig
from detector.models.anchors import AnchorGenerator
from detector.models.backbones.backbone import Backbone
from detector.models.backbones.timm import PREFIX, build_timm_backbone
from detector.models.backbones.torchvision import build_backbone
from detector.models.head import Head
from detector.models.limits import check_size, parameters
from detector.models.necks.fpn import build_fpn
from detector.models.postprocess import Postprocess
from detector.models.retinanet import RetinaNet
from detector.models.state_dict import check_holds

logger = logging.getLogger(__name__)


def build_model(config: ModelConfig, num_classes: int, pretrained: bool = True) -> RetinaNet:
    """The detector that `config` describes, for classes 0 .. num_classes - 1, on the CPU.

    pretrained: read the backbone's weights, unless config.weights names a whole detector's, which the caller
    loads. False: read nothing, as a checkpoint will be loaded; the architecture stays the same.
    Norm "frozen" is "batch" if the config names no weights at all.
    Raises InputError on names that don't exist and on weights that cannot be read or don't fit.
    """
    if _norm(config) != config.backbone.norm:
        logger.warning("model.backbone.norm: batch instead of frozen, as no weights bring statistics to freeze")
    backbone = _build_backbone(config, pretrained)
    fpn = build_fpn(backbone.channels, channels=config.neck.channels, extra_levels=config.neck.extra_levels)
    anchors = AnchorGenerator(
        base_size=config.anchors.base_size, scales=config.anchors.scales, ratios=config.anchors.ratios
    )
    head = Head(
        config.neck.channels,
        anchors_per_cell=anchors.anchors_per_cell,
        num_classes=num_classes,
        depth=config.head.depth,
        width=config.head.width,
        norm=config.head.norm,
        prior=config.head.prior,
    )
    return RetinaNet(backbone=backbone, fpn=fpn, head=head, anchors=anchors, mean=backbone.mean, std=backbone.std)


def check_buildable(config: Config, num_classes: int, state: dict[str, torch.Tensor], *, source: str) -> None:
    """Raises InputError where the detector that `config` describes is too large for anything, or for having `state`: to
    be called before it is built from a file that came from anywhere."""
    check_size(config, num_classes)
    check_holds(state, parameters(config.model, num_classes) + backbone_numbers(config.model), source=source)


def backbone_numbers(config: ModelConfig) -> int:
    """How many numbers the backbone's state dict has, found without taking memory for them. Raises InputError as
    `build_model` does."""
    with torch.device("meta"):
        backbone = _build_backbone(config, pretrained=False)
    return sum(tensor.numel() for tensor in backbone.state_dict().values())


def _build_backbone(config: ModelConfig, pretrained: bool) -> Backbone:
    name = config.backbone.name
    build = build_timm_backbone if name.startswith(PREFIX) else build_backbone
    return build(
        name.removeprefix(PREFIX),
        weights=config.backbone.weights if pretrained and config.weights is None else None,
        norm=_norm(config),
    )


def _norm(config: ModelConfig) -> str:
    """Statistics that nobody estimated would be no normalisation at all. torchvision has the same rule."""
    none = config.weights is None and config.backbone.weights is None
    return "batch" if none and config.backbone.norm == "frozen" else config.backbone.norm


def build_postprocess(config: PostprocessConfig) -> Postprocess:
    return Postprocess(
        score_threshold=config.score_threshold,
        nms_iou=config.nms_iou,
        topk=config.topk,
        max_detections=config.max_detections,
    )
