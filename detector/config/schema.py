"""The settings of an experiment: typed sections, each field with its type, range, default and description.

The JSON Schema, the reference (`tools/train.py --show-config`) and the error messages are made from these fields. A
`Choice` names an entry of a table elsewhere in the package, so the names stand there: inference/config_check.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
Width = Annotated[int, Field(ge=1, le=8192)]
Depth = Annotated[int, Field(ge=0, le=64)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=1, le=10_000)]
Name = Annotated[str, Field(min_length=1)]
Choice = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
AnchorRule = Literal["exact", "torchvision"]
BoxWeighting = Literal["assigner", "score", "iou"]


class Section(BaseModel):
    """Base of every section: it never changes, unknown keys are errors, values are not coerced across types."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ShortLong(Section):
    """Resize so that the short side is `short` px, unless the long side would pass `long` px (as torchvision)."""

    short: Side | Annotated[list[Side], Field(min_length=2, max_length=2)]
    """Length of the short side, in pixels. [least, greatest]: drawn anew for each training image; the greatest is for
    evaluation."""
    long: Side
    """Greatest length of the long side, in pixels."""

    @field_validator("short", mode="before")
    @classmethod
    def _two(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) != 2:
            raise ValueError(f"a list is [least, greatest], any side between is drawn; got {value}")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> ShortLong:
        if self.least > self.greatest:
            raise ValueError(f"short ({self.short}) must be [least, greatest]")
        if self.long < self.greatest:
            raise ValueError(f"long ({self.long}) is smaller than short ({self.greatest})")
        return self

    @property
    def least(self) -> int:
        """The least length of the short side, in pixels."""
        return self.short[0] if isinstance(self.short, list) else self.short

    @property
    def greatest(self) -> int:
        """The greatest length of the short side, in pixels: that of evaluation."""
        return self.short[1] if isinstance(self.short, list) else self.short


class DataConfig(Section):
    """Which data, and how it is read and drawn."""

    dataset: Name
    """Dataset descriptor (YAML), relative to the working directory."""
    image_size: Side | ShortLong = 640
    """A number: letterboxed to a square of that many pixels. {short, long}: resized by side, padded in the batch; with
    short: [640, 800] each training image draws its own short side, and evaluation takes 800."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 2
    """Loader processes; 0 loads in the training process. Any number gives the same batches."""
    bad_annotations: Literal["error", "drop"] = "error"
    """A box of zero size, NaN, or outside its image, and every box of a file whose boxes are evidently corners or
    fractions: stop and name the first, or drop and count. Lesser doubts, such as an object annotated twice, are counted
    in the log."""
    bad_images: Literal["error", "replace"] = "error"
    """A missing or broken training image: save, stop and name it; or replace it by another, count and list it. A bad
    val image always stops, because the figures would change without it."""
    sampling: Choice = "uniform"
    """How often each image is drawn (docs/imbalance.md). The length of an epoch stays the same."""
    repeat_threshold: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """The repeat factors draw images with a class rarer than this more often. auto: the median class's frequency, or
    less if that repeats too much; printed."""

    @field_validator("image_size", mode="before")
    @classmethod
    def _no_list(cls, value: Any) -> Any:
        if isinstance(value, list):
            raise ValueError(f"a number, or a range of short sides as {{short: {value}, long: ...}}; got {value}")
        return value


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


class AssignerConfig(Section):
    """Which anchors are positive, for which object. A setting for another assigner than the named one does nothing."""

    name: Choice = "max_iou"
    """What decides which anchors are positive (docs/configuration.md explains each)."""
    positive_iou: Fraction = 0.5
    """For max_iou: an anchor whose best IoU is at least this is positive."""
    negative_iou: Fraction = 0.4
    """For max_iou: an anchor whose best IoU is below this is background; between the two it is ignored."""
    low_quality: bool = True
    """For max_iou: the anchors with the greatest IoU of an object are positive too, however small that is (as in
    torchvision)."""
    atss_topk: PositiveInt = 9
    """For atss: the cells on each level, nearest to an object's centre, whose anchors are its candidates."""
    tal_topk: PositiveInt = 13
    """For tal: the anchors that an object takes."""
    tal_alpha: NonNegative = 1.0
    """For tal: an object takes the anchors with the greatest score^alpha x IoU^beta."""
    tal_beta: Positive = 6.0
    """For tal: see tal_alpha."""
    every_object: bool = False
    """For atss and tal: an object so small that it holds no anchor's centre takes the anchors that fit it best, instead
    of none as in the papers."""

    @model_validator(mode="after")
    def _ordered(self) -> AssignerConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError(f"negative_iou ({self.negative_iou}) is above positive_iou ({self.positive_iou})")
        return self


class LossConfig(Section):
    """The losses, and the weights of classes in them."""

    alpha: (
        Fraction
        | Annotated[list[Fraction], Field(min_length=1)]
        | Literal["auto", "inverse_frequency", "effective_number"]
        | None
    ) = "auto"
    """Weight of positives in the classification loss; negatives weigh 1 - alpha; null: no weights. auto: what suits
    gamma in the focal loss paper (table 1b): 0.75 at 0, 0.5 at 0.5, 0.25 from 1 on, between by interpolation; printed.
    Or one weight per class, in the order of the classes, or weights from the boxes of each class in an epoch: that of
    auto for the commonest, at most three times that. quality_focal and varifocal have no alpha: there, weights by class
    are relative to that of auto, which is 1."""
    defer_alpha: Fraction = 0.0
    """Part of the training before weights by class apply; until then alpha is auto for all (deferred re-weighting)."""
    gamma: NonNegative | Annotated[list[NonNegative], Field(min_length=1)] = 2.0
    """Focusing parameter, one for all or one per class. A larger gamma gives easy anchors less weight."""
    classification: Choice = "focal"
    """The classification loss (docs/imbalance.md explains each)."""
    effective_beta: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """For alpha effective_number: 0 weighs all classes alike, towards 1 it becomes inverse_frequency."""
    equalized_scale: NonNegative = 8.0
    """For equalized_focal: what a class without any positive gradient adds to gamma; 0 is focal."""
    box: Choice = "smooth_l1"
    """The box loss. smooth_l1 compares deltas; the IoU losses compare decoded boxes."""
    beta: NonNegative = 0.0
    """Where smooth_l1 turns from quadratic to linear; 0 is L1 (detectron2, torchvision v1)."""
    box_weight: Positive = 1.0
    """Weight of the box loss in the sum."""
    box_weighting: BoxWeighting = "assigner"
    """What weighs the box losses of positives against each other. assigner: what it gives (tal: the alignment; the
    others: all alike). score: the anchor's greatest score, as in the paper of quality_focal. iou: of predicted box and
    object, as in the paper of varifocal. The weights are scaled within a batch of a process, not over a step."""
    assigner: AssignerConfig = AssignerConfig()

    @property
    def alpha_is_by_class(self) -> bool:
        """Whether `alpha` weighs the classes against each other."""
        return isinstance(self.alpha, list) or self.alpha in ("inverse_frequency", "effective_number")


def _one_or_more(parts: Any) -> Any:
    return [parts] if isinstance(parts, str) and parts != "auto" else parts


class TrainConfig(Section):
    """Length, optimizer, schedule, checkpoints and limits of a training."""

    epochs: PositiveInt = 12
    """Passes over the training set."""
    batch_size: PositiveInt | Literal["auto"] = 16
    """Images per batch; auto: the largest power of two whose measured steps fit into 80 % of the free memory, with at
    most 64 images per optimizer step and at least 8 steps per epoch."""
    accumulate: PositiveInt = 1
    """Batches per optimizer step. Their gradients are summed: the effective batch is batch_size x accumulate."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd (momentum) or adamw."""
    lr: Positive | None = None
    """Learning rate for an effective batch of 16, scaled to the real one: in proportion for sgd, by the square root for
    adamw. null: the optimizer's own, 0.01 for sgd and 1e-4 for adamw. Printed."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum (AdamW's betas stay 0.9, 0.999)."""
    weight_decay: NonNegative | None = None
    """Weight decay. null: the optimizer's own, 1e-4 for sgd and 0.05 for adamw. Norms, biases and tables of positions
    are never decayed."""
    backbone_lr_factor: NonNegative = 1.0
    """Learning rate of the backbone relative to the rest."""
    freeze: Annotated[Literal["auto"] | list[Name], BeforeValidator(_one_or_more)] = "auto"
    """Parts that are not trained, such as [backbone.stem, backbone.layer1]: backbone or one of its stages, neck,
    attention, head or a part of it. auto: the backbone before stride 8 if its norms are frozen, else nothing."""
    unfreeze: dict[Name, Annotated[int, Field(ge=2)]] = {}
    """Frozen parts that are trained from an epoch on (counted from 1), such as {backbone.layer3: 2}."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """step (divided by 10 at each milestone), cosine (to zero at the end) or constant."""
    milestones: list[Fraction] = [0.667, 0.917]
    """Where `step` divides by 10, as fractions of the training (0.667 and 0.917 are epochs 8 and 11 of 12)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    """Optimizer steps of linear warm-up from lr / 1000, at most a tenth of the training."""
    clip_norm: Positive | None = None
    """Greatest norm of the gradient; null: no clipping."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of an exponential moving average of the weights, such as 0.9998; less in the first steps. The
    average is what is evaluated and saved. null: no average."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Forward and loss arithmetic. auto: bf16 where the device has it in hardware, else fp16 on CUDA, else fp32."""
    channels_last: bool = True
    """NHWC memory layout: faster convolutions, the same results."""
    log_every: PositiveInt = 20
    """Steps between lines in metrics.jsonl and TensorBoard."""
    eval_every: PositiveInt = 1
    """Epochs between evaluations on val; the last epoch is always evaluated."""
    metric: Name = "AP"
    """What the best checkpoint is best in: a COCO figure (AP, AP50, APs, AR100, ...); head, medium or tail, the AP of
    the classes of that frequency (docs/imbalance.md); or a class's name, its AP, even if it is
    called head."""
    save_every: PositiveInt | None = None
    """Steps between checkpoints within an epoch, which change nothing else; null: only at the end of each epoch."""
    keep: Annotated[int, Field(ge=0, le=1000)] = 1
    """Earlier checkpoints kept beside last.pt (last.1.pt, ...). --resume takes the newest that is not damaged."""
    deterministic: bool = False
    """Repeated trainings give identical bits on this machine. Slower on a GPU; on a CPU they always do."""
    patience: PositiveInt | None = None
    """Epochs without a better `metric` after which the training stops; null: never."""
    max_hours: Positive | None = None
    """Hours since the start, or since --resume, after which the training saves and stops; null: never."""
    max_bad_steps: PositiveInt = 10
    """Steps in a row with a loss or gradient that is not finite, after which the training saves and stops. Each such
    step is skipped."""

    @property
    def images_per_step(self) -> int:
        """Images of an optimizer step, batch_size x accumulate, once batch_size is a number."""
        assert isinstance(self.batch_size, int)
        return self.batch_size * self.accumulate


class PasteConfig(Section):
    """Pasting of rare objects into other training images."""

    classes: Literal["auto"] | Annotated[list[Name], Field(min_length=1)] = "auto"
    """Classes to paste. Each is filled up to an equal share of all boxes; auto: those with less than half of an equal
    share, up to that half."""
    per_image: Positive = 1.0
    """Greatest mean number of objects pasted into an image; the rarest classes come first."""
    max_factor: Positive = 10.0
    """Greatest mean number of times per epoch that one crop is pasted."""
    context: Fraction = 0.1
    """Margin that is cut out around a box, as a fraction of its sides. The crop fades into the image there."""
    scale: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [0.7, 1.4]
    """Least and greatest size of a pasted object, relative to its own size."""
    flip: bool = True
    """Mirror half of the crops; set it to false where left and right mean something."""
    occlusion: Fraction = 0.5
    """An object loses its label when pasting covers more than this fraction of it."""
    blend: Literal["feather", "clone"] = "feather"
    """How a crop joins the image: with fading edges, or also with the image's colours (Poisson editing, slower)."""

    @model_validator(mode="after")
    def _ordered(self) -> PasteConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale ({self.scale}) must be [least, greatest]")
        return self


class AugmentConfig(Section):
    """How training images are varied."""

    transforms: Choice | list[dict[str, Any]] = "light"
    """A preset, or a list of albumentations transforms, as [{name: HorizontalFlip, p: 0.5}]."""
    mosaic: Fraction = 0.0
    """Probability that an image is made of crops of itself and of three others; objects keep their sizes."""
    mixup: Fraction = 0.0
    """Probability that an image is averaged with another; the objects of both stay."""
    close: Fraction = 0.1
    """The last part of the training, in whole epochs, that has no mosaic and mixup. Its images are as the detector will
    meet them (YOLOX, 2107.08430)."""
    paste: None | PasteConfig = None
    """Paste objects of rare classes into other training images: {}, or some of classes, per_image, max_factor, context,
    scale, flip, occlusion, blend; null: no pasting."""


class ImbalanceConfig(Section):
    """What `imbalance: auto` may choose."""

    sampling: bool = True
    """Choose data.sampling and data.repeat_threshold."""
    loss: bool = True
    """Choose loss.alpha, loss.effective_beta and loss.defer_alpha."""
    paste: bool = True
    """Choose augment.paste."""


class ThresholdConfig(Section):
    """What the score threshold of a class is to reach on val."""

    figure: Literal["f_score", "precision", "recall"] = "f_score"
    """f_score: the greatest F-score. precision: the greatest recall with a precision of at least `target`. recall: the
    greatest precision with a recall of at least `target`."""
    beta: Positive = 1.0
    """For f_score: how many times as much recall weighs as precision."""
    target: Annotated[float, Field(gt=0, le=1)] = 0.9
    """For precision or recall: the least value."""


class EvalConfig(Section):
    """How detectors are evaluated and used."""

    backend: Literal["arrays", "pycocotools"] = "arrays"
    """What computes COCO's figures: this project's arrays, or the reference, which is slower and gives the same."""
    batch_size: PositiveInt = 8
    """Images per forward pass in evaluation and prediction."""
    threshold: ThresholdConfig = ThresholdConfig()
    """How each class's score threshold for tools/predict.py and detector.load is chosen on val."""
    calibrate: bool = False
    """Report calibrated scores: the precision that val had at that score (isotonic regression per class). tools/eval.py
    then measures them. A training chooses its best checkpoint by scores as they are."""


class Config(Section):
    """One experiment."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seeds the weights, the order of the images and every augmentation."""
    output_dir: Name | None = None
    """Run directory; null: runs/<config file's stem>."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or a torch device such as cuda:1 or cpu."""
    imbalance: Literal["none", "auto"] | ImbalanceConfig = "none"
    """auto: choose sampling, loss and pasting for the classes of the training split, and print why. {paste: false}
    leaves that choice out. Settings that are given are kept. The run's config.yaml holds the choices as settings."""
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()

    @property
    def run_directory(self) -> Path:
        """`output_dir`, which `load_config` has filled in."""
        assert self.output_dir is not None
        return Path(self.output_dir)

    @property
    def deferred_epochs(self) -> int:
        """Epochs before weights by class apply (`loss.defer_alpha`); 0 if there are no such weights."""
        return math.ceil(round(self.loss.defer_alpha * self.train.epochs, 9)) if self.loss.alpha_is_by_class else 0

    def with_anchor_rule(self, rule: AnchorRule) -> Config:
        """A copy in which `rule` stands for an auto in `model.anchors.rule`."""
        return self.changed({"model.anchors.rule": rule}) if self.model.anchors.rule == "auto" else self

    @property
    def mixed_epochs(self) -> int:
        """Epochs with mosaic and mixup, all but the last part of the training (`augment.close`); 0 without either.

        That part is rounded up to whole epochs, but leaves one with them unless it is all of the training.
        """
        if not (self.augment.mosaic or self.augment.mixup):
            return 0
        closed = math.ceil(round(self.augment.close * self.train.epochs, 9))
        return max(self.train.epochs - closed, int(self.augment.close < 1))

    def changed(self, settings: Mapping[str, Any]) -> Config:
        """A copy with other values at dotted paths, such as {"train.lr": 0.1}; `self` stays as it is.

        In the copy they count as given (`model_fields_set`), as does what was given before. Raises
        pydantic.ValidationError.
        """
        tree = self.model_dump(exclude_unset=True)
        for path, value in settings.items():
            set_at(tree, path, value.model_dump() if isinstance(value, BaseModel) else value)
        return Config.model_validate(tree)


def set_at(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path of nested dicts, in place."""
    *parents, leaf = path.split(".")
    for key in parents:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[leaf] = value
