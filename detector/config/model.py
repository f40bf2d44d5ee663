"""The section `model`: from the weights to the detections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detector.config.section import Choice, Depth, Fraction, Name, Positive, PositiveInt, Section, Width

AnchorRule = Literal["exact", "torchvision"]


class BackboneConfig(Section):
    """The network that turns images into C3, C4 and C5, and into C2 where neck.finest is p2."""

    name: str = "resnet50"
    """A torchvision network, or timm/<any model with features at strides 8, 16 and 32>, such as timm/convnext_tiny
    (pip install timm)."""
    weights: Name | None = "DEFAULT"
    """ImageNet weights: a torchvision enum name (DEFAULT, IMAGENET1K_V1, ...), a local file, or null: from scratch."""
    norm: Literal["frozen", "batch", "sync", "group"] = "frozen"
    """Normalisation: frozen statistics, batch, sync (batch across GPUs), or group (for small batches from scratch)."""


class NeckConfig(Section):
    """The pyramid P3..P7, or P2..P7, from the backbone's features."""

    name: Choice = "fpn"
    """What makes the pyramid of the backbone's features: fpn; or pafpn, which adds a path from fine to coarse."""
    finest: Literal["p2", "p3"] = "p3"
    """The finest level. p3: a cell every 8 px. p2: also one every 4 px, for objects of a few pixels: four times the
    anchors, and four times the work of the head; printed."""
    channels: Width = 256
    """Channels of every pyramid level."""
    extra_levels: Literal["p5", "c5"] = "p5"
    """What P6 is computed from: p5 (torchvision v1) or c5 (the paper, detectron2, torchvision v2). P7 is computed from
    P6."""

    @property
    def finest_stride(self) -> int:
        """Pixels from a cell of the finest level to the next."""
        return {"p2": 4, "p3": 8}[self.finest]


class AttentionConfig(Section):
    """What lets the pyramid levels attend to one another, between neck and head."""

    name: Choice = "none"
    """What refines the pyramid levels: none; light, cheap enough for a CPU; or dyhead, the Dynamic Head, whose
    deformable convolutions want a GPU."""
    blocks: Annotated[int, Field(ge=1, le=64)] = 1
    """Blocks in a row. The Dynamic Head's paper has 6, in place of the towers (model.head.depth 0)."""


class HeadConfig(Section):
    """The two towers that predict class logits and box deltas."""

    depth: Depth = 4
    """3x3 convolutions in each tower before the prediction."""
    width: Width = 256
    """Channels of the towers."""
    norm: Literal["none", "group"] = "none"
    """GroupNorm(32) after each tower convolution, or nothing."""
    prior: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """The score that every anchor starts with (pi in the focal loss paper, section 3.3)."""


class AnchorConfig(Section):
    """The anchor boxes at each cell of the pyramid."""

    base_size: Annotated[float, Field(gt=0, le=10_000)] = 32
    """Side of the smallest square anchor on P3, in pixels of the fed image. It doubles at each level; P2 has half."""
    scales: Annotated[int, Field(ge=1, le=32)] = 3
    """Sizes per octave: 3 gives 2^0, 2^(1/3), 2^(2/3)."""
    ratios: Annotated[list[Positive], Field(min_length=1, max_length=32)] = [0.5, 1.0, 2.0]
    """Height / width of the anchors."""
    rule: Literal["auto", "exact", "torchvision"] = "auto"
    """How anchors are laid out. exact: cells 8, 16, ... 128 px apart, sides not rounded (as detectron2). torchvision:
    cells image side // grid side apart, which moves P6 and P7 with the padding, and whole pixels. auto: as
    `model.weights` were trained; exact where it names no detector."""

    @property
    def resolved_rule(self) -> AnchorRule:
        """`rule`; exact where it is still auto, as no weights have asked for another."""
        return "exact" if self.rule == "auto" else self.rule


class PostprocessConfig(Section):
    """From logits and deltas to detections."""

    score_threshold: Fraction = 0.05
    """Detections below this score are not reported."""
    nms: Literal["by_class", "all"] = "by_class"
    """Which boxes suppress each other: those of one class; or all, so that an object gets one class."""
    nms_iou: Fraction = 0.5
    """Of two such boxes with a greater IoU than this, only the one with the higher score is kept."""
    topk: PositiveInt = 1000
    """Candidates per pyramid level that enter NMS."""
    max_detections: PositiveInt = 100
    """Detections kept per image (COCO counts 100)."""


class ModelConfig(Section):
    """The detector and the weights that it starts from."""

    weights: Name | None = None
    """What to start from: a run directory or checkpoint, a torchvision enum name
    (RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1), a .pth or .safetensors file of a RetinaNet in torchvision's or
    detectron2's layout, or of an ImageNet backbone; null: only what backbone.weights names."""
    class_map: dict[Name, Name] = {}
    """Renamed classes, {name in this dataset: name in `weights`}. Case and spaces need no entry: they match anyway."""
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    attention: AttentionConfig = AttentionConfig()
    head: HeadConfig = HeadConfig()
    anchors: AnchorConfig = AnchorConfig()
    postprocess: PostprocessConfig = PostprocessConfig()

    @model_validator(mode="after")
    def _mapped(self) -> ModelConfig:
        if self.class_map and self.weights is None:
            raise ValueError("class_map names classes of model.weights, and model.weights is null")
        return self
