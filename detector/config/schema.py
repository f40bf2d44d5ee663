"""The experiment file: typed sections, one `base:`, dotted overrides, and errors that name the nearest right thing.

A field is declared once, here, with its type, range, default and description; the JSON Schema, the annotated
reference (`tools/train.py --show-config`) and every error message are made from these declarations.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
Width = Annotated[int, Field(ge=1, le=8192)]
Depth = Annotated[int, Field(ge=0, le=64)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=1, le=10_000)]
Name = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values are not coerced across types."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class ShortLong(Section):
    """Resize so that the short side is `short` px, unless the long side would pass `long` px (as torchvision)."""

    short: Side
    """Length of the short side, in pixels."""
    long: Side
    """Greatest length of the long side, in pixels."""

    @model_validator(mode="after")
    def _ordered(self) -> ShortLong:
        if self.long < self.short:
            raise ValueError(f"long ({self.long}) is smaller than short ({self.short})")
        return self


class DataConfig(Section):
    dataset: Name
    """Dataset descriptor (YAML), relative to the working directory."""
    image_size: Side | ShortLong = 640
    """A number: letterboxed to a square of that many pixels. {short, long}: resized by side, padded in the batch."""
    augment: Literal["none", "light", "strong"] | list[dict[str, Any]] = "light"
    """Training augmentation: a preset, or a list of albumentations transforms as [{name: HorizontalFlip, p: 0.5}]."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 2
    """Loader processes; 0 loads in the training process. The batches are the same for any number."""
    bad_annotations: Literal["error", "drop"] = "error"
    """A box of zero size, NaN, or outside its image: stop and name it, or drop and count."""
    bad_images: Literal["error", "replace"] = "error"
    """A training image that is missing or broken: save, stop and name it, or take another in its place, counted and
    listed in metrics.jsonl. (A val image always stops: without it the figures would be others.)"""
    sampling: Literal["uniform", "repeat_factor", "instance_repeat_factor", "class_aware"] = "uniform"
    """How often an image is drawn: once an epoch; more with a class that few images have (LVIS's repeat factor), or
    that few images and objects have (IRFS); or so that every class is drawn as often. An epoch stays as long."""
    repeat_threshold: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """Images with a class that is less frequent than this are drawn more often by repeat_factor and
    instance_repeat_factor; auto = the median class's frequency, or less if it repeats too much, printed."""

    @model_validator(mode="after")
    def _repeating(self) -> DataConfig:
        if self.repeat_threshold != "auto" and not self.sampling.endswith("repeat_factor"):
            raise ValueError(
                f"repeat_threshold is for sampling repeat_factor or instance_repeat_factor, and sampling is "
                f"{self.sampling}"
            )
        return self


class BackboneConfig(Section):
    name: str = "resnet50"
    """resnet18, resnet34, resnet50, resnet101, resnext50_32x4d, mobilenet_v3_large, or timm/<any model with
    features at strides 8, 16 and 32> (pip install timm), e.g. timm/convnext_tiny."""
    weights: Name | None = "DEFAULT"
    """ImageNet weights: a torchvision enum name (DEFAULT, IMAGENET1K_V1, ...), a local file, or null = from scratch."""
    norm: Literal["frozen", "batch", "sync", "group"] = "frozen"
    """Normalisation: frozen statistics, batch, sync (batch across GPUs), or group (for small batches from scratch)."""


class FPNConfig(Section):
    channels: Width = 256
    """Channels of every pyramid level P3..P7."""
    extra_levels: Literal["p5", "c5"] = "p5"
    """Where P6 (and from it P7) is computed from: p5 (torchvision v1) or c5 (the paper, torchvision v2)."""


class HeadConfig(Section):
    depth: Depth = 4
    """3x3 convolutions in each tower before the prediction."""
    width: Width = 256
    """Channels of the towers."""
    norm: Literal["none", "group"] = "none"
    """GroupNorm(32) after each tower convolution, or nothing."""
    prior: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Score every anchor starts with (pi in the focal loss paper, section 3.3)."""


class AnchorConfig(Section):
    base_size: Positive = 32
    """Side of the smallest square anchor on P3, in pixels of the fed image; it doubles at each level."""
    scales: Annotated[int, Field(ge=1, le=32)] = 3
    """Sizes an octave: 3 gives 2^0, 2^(1/3), 2^(2/3)."""
    ratios: Annotated[list[Positive], Field(min_length=1, max_length=32)] = [0.5, 1.0, 2.0]
    """Height / width of the anchors."""


class PostprocessConfig(Section):
    score_threshold: Fraction = 0.05
    """Detections below this score are not reported."""
    nms_iou: Fraction = 0.5
    """Of two boxes of one class overlapping more than this, the lower-scored goes."""
    topk: PositiveInt = 1000
    """Candidates of each pyramid level that enter NMS."""
    max_detections: PositiveInt = 100
    """Detections kept an image (COCO counts 100)."""


class ModelConfig(Section):
    weights: Name | None = None
    """What to start from: a run directory or checkpoint, a torchvision enum name
    (RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1), a .pth or .safetensors file of a RetinaNet in torchvision's or
    detectron2's layout, or of an ImageNet backbone; null = only what backbone.weights says."""
    class_map: dict[Name, Name] = {}
    """Renamed classes, {name in this dataset: name in `weights`}; equal names (but for case and spaces) need none."""
    backbone: BackboneConfig = BackboneConfig()
    fpn: FPNConfig = FPNConfig()
    head: HeadConfig = HeadConfig()
    anchors: AnchorConfig = AnchorConfig()
    postprocess: PostprocessConfig = PostprocessConfig()

    @model_validator(mode="after")
    def _mapped(self) -> ModelConfig:
        if self.class_map and self.weights is None:
            raise ValueError("class_map says what classes are called in model.weights, and there are none")
        return self


class AssignerConfig(Section):
    positive_iou: Fraction = 0.5
    """An anchor whose best IoU is at least this is positive."""
    negative_iou: Fraction = 0.4
    """An anchor whose best IoU is below this is background; in between it is ignored."""
    low_quality: bool = True
    """Also make positive the anchors that overlap an object best, however little (torchvision does)."""

    @model_validator(mode="after")
    def _ordered(self) -> AssignerConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError(f"negative_iou ({self.negative_iou}) is above positive_iou ({self.positive_iou})")
        return self


class LossConfig(Section):
    alpha: (
        Fraction
        | Annotated[list[Fraction], Field(min_length=1)]
        | Literal["inverse_frequency", "effective_number"]
        | None
    ) = 0.25
    """Weight of positives in the classification loss, 1 - alpha that of negatives; null = no weighting. Or the weights
    of each class's positives, in the order of the classes; or made from the boxes of each class, with 0.25 as the mean
    over all boxes. quality_focal and varifocal have weights of their own."""
    gamma: NonNegative | Annotated[list[NonNegative], Field(min_length=1)] = 2.0
    """Focusing parameter, one or one a class: easy anchors count less with a larger one. cross_entropy has none, and
    adaptive_focal begins with it."""
    classification: Literal[
        "focal", "cross_entropy", "equalized_focal", "quality_focal", "varifocal", "adaptive_focal"
    ] = "focal"
    """focal; cross_entropy (gamma 0); equalized_focal (more focus and weight for classes of little positive gradient);
    quality_focal, varifocal (scores say how good the box is); adaptive_focal (gamma falls as training goes on)."""
    effective_beta: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Of alpha effective_number: 0 weighs all classes alike, towards 1 it is inverse_frequency."""
    equalized_scale: NonNegative = 8.0
    """Of equalized_focal: what is added to gamma for a class without any positive gradient; 0 is focal."""
    box: Literal["smooth_l1", "giou", "diou", "ciou"] = "smooth_l1"
    """Box loss. smooth_l1 compares deltas; the IoU losses compare decoded boxes."""
    beta: NonNegative = 0.0
    """Where smooth_l1 turns from quadratic to linear; 0 is L1 (torchvision v1)."""
    box_weight: Positive = 1.0
    """Weight of the box loss in the sum."""
    assigner: AssignerConfig = AssignerConfig()

    @model_validator(mode="after")
    def _used(self) -> LossConfig:
        kind = self.classification
        if kind in ("quality_focal", "varifocal") and isinstance(self.alpha, (list, str)):
            raise ValueError(f"alpha by class is for focal losses; {kind} has weights of its own")
        if kind == "adaptive_focal" and isinstance(self.gamma, list):
            raise ValueError("gamma by class is not for adaptive_focal, which has one for all")
        if kind == "equalized_focal" and 0 in (self.gamma if isinstance(self.gamma, list) else [self.gamma]):
            raise ValueError("gamma must be above 0 for equalized_focal, which weighs classes by it")
        return self


def _one_or_more(parts: Any) -> Any:
    return [parts] if isinstance(parts, str) and parts != "auto" else parts


class TrainConfig(Section):
    epochs: PositiveInt = 12
    """Passes over the training set."""
    batch_size: PositiveInt | Literal["auto"] = 16
    """Images a step; auto = the largest that fits into the device's memory, measured."""
    accumulate: PositiveInt = 1
    """Steps whose gradients are summed before the weights move: effective batch = batch_size x accumulate."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd (momentum) or adamw."""
    lr: Positive = 0.01
    """Learning rate for an effective batch of 16; scaled linearly to the real one, and printed."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum (AdamW's betas stay 0.9, 0.999)."""
    weight_decay: NonNegative = 1e-4
    """Decay of weights; norms and biases are never decayed."""
    backbone_lr_factor: NonNegative = 1.0
    """Learning rate of the backbone relative to the rest."""
    freeze: Annotated[Literal["auto"] | list[Name], BeforeValidator(_one_or_more)] = "auto"
    """Parts that are not trained, e.g. [backbone.stem, backbone.layer1]: a stage, backbone, fpn, or head. auto: the
    backbone before stride 8 where its norms are frozen, else nothing."""
    unfreeze: dict[Name, Annotated[int, Field(ge=2)]] = {}
    """Frozen parts that are trained from an epoch on (counted from 1), e.g. {backbone.layer3: 2}."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """step (divided by 10 at each milestone), cosine (to zero at the end) or constant."""
    milestones: list[Fraction] = [0.667, 0.917]
    """Where `step` divides by 10, as fractions of the training (0.667 and 0.917 are epochs 8 and 11 of 12)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    """Optimizer steps of linear warm-up from lr / 1000, at most a tenth of the training."""
    clip_norm: Positive | None = None
    """Greatest norm of the gradient; null = not clipped."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay a step of an exponential moving average of the weights, which is then what is evaluated and saved
    (0.9998, say; less in the first steps); null = none."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Forward and loss arithmetic. auto: bf16 where the device has it in hardware, else fp16 on CUDA, else fp32."""
    channels_last: bool = True
    """NHWC memory layout: faster convolutions, the same results."""
    log_every: PositiveInt = 20
    """Steps between lines in metrics.jsonl and TensorBoard."""
    eval_every: PositiveInt = 1
    """Epochs between evaluations on val; the last epoch is always evaluated."""
    metric: Name = "AP"
    """What the best checkpoint is best in: AP, AP50, AP75, APs, APm, APl, AR100, ..., or a class (its AP)."""
    save_every: PositiveInt | None = None
    """Steps between checkpoints in mid-epoch, which change nothing; null = only when an epoch ends."""
    keep: Annotated[int, Field(ge=0, le=1000)] = 1
    """Earlier checkpoints kept beside last.pt (last.1.pt, ...); the newest that is not damaged is resumed from."""
    deterministic: bool = False
    """The same bits from every training on this machine, slower on a GPU; on a CPU they always are."""
    patience: PositiveInt | None = None
    """Stop when `metric` was not exceeded for this many epochs; null = never."""
    max_hours: Positive | None = None
    """Save and stop after so many hours since the start, or since --resume; null = never."""
    max_bad_steps: PositiveInt = 10
    """A step whose loss or gradient is not finite is skipped; save and stop after so many in a row."""


class PasteConfig(Section):
    classes: Literal["auto"] | Annotated[list[Name], Field(min_length=1)] = "auto"
    """Classes to paste, up to an equal share of all boxes each; auto = those with less than half of one, up to that."""
    per_image: Positive = 1.0
    """Objects pasted into an image on average, at most; the rarest classes come first."""
    max_factor: Positive = 10.0
    """Times an epoch that one crop is pasted, at most, on average."""
    context: Fraction = 0.1
    """What is cut out around a box, in parts of its sides: where the crop fades into the image."""
    scale: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [0.7, 1.4]
    """Least and greatest size of a pasted object, in parts of its own."""
    flip: bool = True
    """Mirror every other crop; false where left and right mean something."""
    occlusion: Fraction = 0.5
    """An object of which pasting covers more than this part loses its label."""
    blend: Literal["feather", "clone"] = "feather"
    """How a crop joins the image: fading edges, or also the image's colours (Poisson editing, slower)."""

    @model_validator(mode="after")
    def _ordered(self) -> PasteConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale ({self.scale}) must be [least, greatest]")
        return self


class AugmentConfig(Section):
    paste: None | PasteConfig = None
    """Paste objects of rare classes into other training images: {} or some of classes, per_image, max_factor, context,
    scale, flip, occlusion, blend; null = no pasting."""
    mosaic: Fraction = 0.0
    """Probability that an image becomes a quarter of itself and of three others."""
    mixup: Fraction = 0.0
    """Probability that an image is averaged with another, keeping the objects of both."""


class ImbalanceConfig(Section):
    sampling: bool = True
    """Choose data.sampling and data.repeat_threshold."""
    loss: bool = True
    """Choose loss.classification and loss.alpha."""
    paste: bool = True
    """Choose augment.paste."""


class ThresholdConfig(Section):
    figure: Literal["f_score", "precision", "recall"] = "f_score"
    """The greatest F-score; or at least `target` of precision or recall, and as much of the other as that leaves."""
    beta: Positive = 1.0
    """Of f_score: how much more recall weighs than precision."""
    target: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Of precision or recall."""


def _still_there(backend: Any) -> Any:
    return "arrays" if backend == "faster_coco_eval" else backend  # runs of earlier versions name it


class EvalConfig(Section):
    backend: Annotated[Literal["arrays", "pycocotools"], BeforeValidator(_still_there)] = "arrays"
    """Who computes COCO's figures: our own arrays, or the reference, slower; the figures are the same."""
    batch_size: PositiveInt = 8
    """Images a forward pass in evaluation and prediction."""
    threshold: ThresholdConfig = ThresholdConfig()
    """How the score that each class is used with (predict, detector.load) is chosen on val."""
    calibrate: bool = False
    """Detect with scores that are shares of right detections, as seen on val (isotonic regression by class)."""


class Config(Section):
    """One experiment."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seeds the weights, the order of the images and every augmentation."""
    output_dir: Name | None = None
    """Run directory; null = runs/<config file's stem>."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or a torch device such as cuda:1 or cpu."""
    imbalance: Literal["none", "auto"] | ImbalanceConfig = "none"
    """auto: choose the sampling, loss and pasting that suit the classes of the training split, and say why; {paste:
    false} leaves that out, as does a setting that is given. The choices are settings of the run's config.yaml."""
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
