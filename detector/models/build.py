"""The only wiring: from the `model` section of the config to the detector."""

from __future__ import annotations

import logging

import torch

from detector.config.model import ModelConfig, PostprocessConfig
from detector.models.anchors import AnchorGenerator
from detector.models.attention import build_attention
from detector.models.backbones import build_backbone
from detector.models.head import Head
from detector.models.necks import build_neck
from detector.models.norm import FeatureNorms
from detector.models.postprocess import Postprocess
from detector.models.retinanet import RetinaNet

logger = logging.getLogger(__name__)


def build_model(config: ModelConfig, num_classes: int, pretrained: bool = True) -> RetinaNet:
    """The detector that `config` describes, for classes 0 .. num_classes - 1, on the CPU.

    pretrained: read the backbone's weights, unless config.weights names a whole detector's, which the caller
    loads. False: read nothing, as a checkpoint will be loaded; the architecture is the same.
    Norm "frozen" becomes "batch" if the config names no weights at all.
    Raises InputError on unknown names and on weights that cannot be read or do not fit.
    """
    if _norm(config) != config.backbone.norm:
        logger.warning("model.backbone.norm: batch instead of frozen, as no weights bring statistics to freeze")
    reads_backbone = pretrained and config.weights is None
    return _build(config, num_classes, weights=config.backbone.weights if reads_backbone else None)


def build_without_memory(config: ModelConfig, num_classes: int) -> RetinaNet:
    """The same detector on torch's meta device: names, shapes and modules, but no values and no memory for them.

    Draws no random numbers. Raises InputError as `build_model` does.
    """
    with torch.device("meta"):
        return _build(config, num_classes, weights=None)


def _build(config: ModelConfig, num_classes: int, weights: str | None) -> RetinaNet:
    backbone = build_backbone(
        config.backbone.name, weights=weights, norm=_norm(config), finest_stride=config.neck.finest_stride
    )
    norms = None if backbone.norm_eps is None else FeatureNorms(backbone.channels, backbone.norm_eps)
    neck = build_neck(backbone.channels, config.neck)
    anchors = build_anchors(config)
    head = Head(
        config.neck.channels,
        anchors_per_cell=anchors.anchors_per_cell,
        num_classes=num_classes,
        depth=config.head.depth,
        width=config.head.width,
        norm=config.head.norm,
        prior=config.head.prior,
    )
    # the last to draw random numbers: the rest starts the same with and without it
    attention = build_attention(config.neck.channels, config.attention)
    return RetinaNet(
        backbone=backbone,
        norms=norms,
        neck=neck,
        attention=attention,
        head=head,
        anchors=anchors,
        mean=backbone.mean,
        std=backbone.std,
    )


def build_anchors(config: ModelConfig) -> AnchorGenerator:
    """What makes the anchors of the detector that `config` describes. Raises InputError if their sides round to 0."""
    return AnchorGenerator(
        base_size=config.anchors.base_size,
        scales=config.anchors.scales,
        ratios=config.anchors.ratios,
        rule=config.anchors.resolved_rule,
        finest_stride=config.neck.finest_stride,
    )


def _norm(config: ModelConfig) -> str:
    """The backbone's norm; initial statistics are not worth freezing. torchvision has the same rule."""
    no_weights = config.weights is None and config.backbone.weights is None
    return "batch" if no_weights and config.backbone.norm == "frozen" else config.backbone.norm


def to_device(model: RetinaNet, device: torch.device | str, channels_last: bool) -> RetinaNet:
    """The model itself, moved to `device`; channels_last: its convolutions in NHWC memory layout, else in NCHW."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(device)
    model.to(memory_format=layout)
    return model


def build_postprocess(config: PostprocessConfig) -> Postprocess:
    """What turns the model's outputs into detections."""
    return Postprocess(
        score_threshold=config.score_threshold,
        nms=config.nms,
        nms_iou=config.nms_iou,
        topk=config.topk,
        max_detections=config.max_detections,
    )
