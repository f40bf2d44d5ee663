"""The experiment file: typed sections, one `base:`, dotted overrides, and errors that name the nearest right thing.

A field is declared once, here, with its type, range, default and description; the JSON Schema, the annotated
reference (`tools/train.py --show-config`) and every error message are made from these declarations.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from detector.utils.errors import InputError
from detector.utils.yaml import read_yaml, read_yaml_file

PositiveInt = Annotated[int, Field(ge=1)]
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
    workers: Annotated[int, Field(ge=0)] = 2
    """Loader processes; 0 loads in the training process. The batches are the same for any number."""
    bad_annotations: Literal["error", "drop"] = "error"
    """A box of zero size, NaN, or outside its image: stop and name it, or drop and count."""


class BackboneConfig(Section):
    name: str = "resnet50"
    """resnet18, resnet34, resnet50, resnet101, resnext50_32x4d, mobilenet_v3_large, or timm/<any model with
    features at strides 8, 16 and 32> (pip install timm), e.g. timm/convnext_tiny."""
    weights: Name | None = "DEFAULT"
    """ImageNet weights: a torchvision enum name (DEFAULT, IMAGENET1K_V1, ...), a local file, or null = from scratch."""
    norm: Literal["frozen", "batch", "sync", "group"] = "frozen"
    """Normalisation: frozen statistics, batch, sync (batch across GPUs), or group (for small batches from scratch)."""


class FPNConfig(Section):
    channels: PositiveInt = 256
    """Channels of every pyramid level P3..P7."""
    extra_levels: Literal["p5", "c5"] = "p5"
    """Where P6 (and from it P7) is computed from: p5 (torchvision v1) or c5 (the paper, torchvision v2)."""


class HeadConfig(Section):
    depth: Annotated[int, Field(ge=0)] = 4
    """3x3 convolutions in each tower before the prediction."""
    width: PositiveInt = 256
    """Channels of the towers."""
    norm: Literal["none", "group"] = "none"
    """GroupNorm(32) after each tower convolution, or nothing."""
    prior: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Score every anchor starts with (pi in the focal loss paper, section 3.3)."""


class AnchorConfig(Section):
    base_size: Positive = 32
    """Side of the smallest square anchor on P3, in pixels of the fed image; it doubles at each level."""
    scales: PositiveInt = 3
    """Sizes an octave: 3 gives 2^0, 2^(1/3), 2^(2/3)."""
    ratios: Annotated[list[Positive], Field(min_length=1)] = [0.5, 1.0, 2.0]
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
    alpha: Fraction | None = 0.25
    """Weight of positives in the focal loss, 1 - alpha that of negatives; null = no weighting."""
    gamma: NonNegative = 2.0
    """Focusing parameter; 0 is cross entropy."""
    box: Literal["smooth_l1", "giou", "diou", "ciou"] = "smooth_l1"
    """Box loss. smooth_l1 compares deltas; the IoU losses compare decoded boxes."""
    beta: NonNegative = 0.0
    """Where smooth_l1 turns from quadratic to linear; 0 is L1 (torchvision v1)."""
    box_weight: Positive = 1.0
    """Weight of the box loss in the sum."""
    assigner: AssignerConfig = AssignerConfig()


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
    patience: PositiveInt | None = None
    """Stop when `metric` was not exceeded for this many epochs; null = never."""


class EvalConfig(Section):
    backend: Literal["faster_coco_eval", "pycocotools"] = "faster_coco_eval"
    """Who computes COCO's metrics: the C++ port or the reference; the figures are the same."""
    batch_size: PositiveInt = 8
    """Images a forward pass in evaluation and prediction."""


class Config(Section):
    """One experiment."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seeds the weights, the order of the images and every augmentation."""
    output_dir: Name | None = None
    """Run directory; null = runs/<config file's stem>."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or a torch device such as cuda:1 or cpu."""
    data: DataConfig
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Read an experiment file, its `base:`, and `dotted.path=value` overrides into a validated Config.

    Raises InputError (one sentence: file, key path, nearest valid key or the allowed values) on anything wrong.
    """
    path = Path(path)
    config = validate(_with_base(path), str(path), overrides)
    if config.output_dir is None:
        config.output_dir = str(Path("runs") / path.stem)
    return config


def validate(tree: dict, source: str, overrides: typing.Sequence[str] = ()) -> Config:
    """A nested dict (from `source`, named in errors), with overrides, as a Config. Raises InputError."""
    for override in overrides:
        _apply(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as problem:
        raise InputError(f"{source}: {_sentence(_nearest_miss(problem.errors()))}") from None


def dump(config: Config) -> str:
    """The whole configuration as YAML that `load_config` reads back to the same Config."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def reference() -> str:
    """Every field with its default, above it a comment that says its meaning and type: a valid config file."""
    lines = ["# yaml-language-server: $schema=config.schema.json", *_reference_lines(Config, 0)]
    return "\n".join(lines) + "\n"


def _with_base(path: Path, child: Path | None = None) -> dict:
    tree = read_yaml_file(path, "config file")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if child is not None:
        raise InputError(f"{path}: `base: {base}` here too, below {child}; one base at most, so copy its lines")
    if not isinstance(base, str):
        raise InputError(f"{path}: base: must be the name of one file, got {base!r}")
    return _merge(_with_base(path.parent / base, child=path), tree)


def _merge(base: dict, over: dict) -> dict:
    """`over` on top of `base`, section by section; {short, long} replaces a number and the reverse."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply(tree: dict, override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise InputError(f"{override!r}: an override reads dotted.path=value, e.g. train.epochs=24")
    try:
        value = read_yaml(text)
    except yaml.YAMLError:
        raise InputError(f"{override!r}: {text!r} is not a YAML value") from None
    if isinstance(value, dict) and any(entry is None and ":" in str(key) for key, entry in value.items()):
        raise InputError(f"{override!r}: in YAML a space follows the colon, {{a: b}}; quote the whole for the shell")
    *parents, leaf = dotted.split(".")
    for key in parents:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[leaf] = value


def _nearest_miss(errors: list[dict]) -> dict:
    """Of the errors at the first wrong place (one for each member of a union), that of the member which was meant:
    the deepest, rather one that did not fail at the type, rather an unknown key."""
    place = _location(errors[0])
    there = [e for e in errors if _location(e)[: len(place)] == place]
    return max(
        there,
        key=lambda e: (len(_location(e)), not e["type"].endswith("_type"), e["type"] == "extra_forbidden"),
    )


def _location(error: dict) -> list[str | int]:
    """Where in the config, without the members of a union (`ShortLong`, `list[...]`) that pydantic names on the way."""
    *parents, last = error["loc"] or [""]
    known = {name for section in _sections(Config) for name in section.model_fields}
    return [part for part in parents if part in known or isinstance(part, int)] + (
        [last] if last in known or isinstance(last, int) or error["type"] == "extra_forbidden" else []
    )


def _sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield section
    for field in section.model_fields.values():
        for member in _members(field.annotation):
            if isinstance(member, type) and issubclass(member, BaseModel):
                yield from _sections(member)


def _sentence(error: dict) -> str:
    """One pydantic error as: key path, what is wrong, nearest valid key or the allowed values."""
    location = _location(error)
    dotted = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        fields = list(_section_at(location[:-1]).model_fields)
        near = difflib.get_close_matches(str(location[-1]), fields, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"valid here: {', '.join(fields)}"
        return f"unknown key `{dotted}`; {hint}"
    if error["type"] == "missing":
        return f"`{dotted}` is required"
    if error["type"] == "value_error":
        return f"`{dotted}`: {error['ctx']['error']}"
    return f"`{dotted}`: {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _section_at(location: list) -> type[BaseModel]:
    section: type[BaseModel] = Config
    for key in location:
        members = _members(section.model_fields[key].annotation)
        section = next(m for m in members if isinstance(m, type) and issubclass(m, BaseModel))
    return section


def _members(annotation: Any) -> list:
    """The types of a union, one level of Annotated and Optional opened."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [m for arg in typing.get_args(annotation) for m in _members(arg)]
    if typing.get_origin(annotation) is Annotated:
        return _members(typing.get_args(annotation)[0])
    return [annotation]


def _reference_lines(section: type[BaseModel], depth: int) -> list[str]:
    indent = "  " * depth
    lines = []
    for name, field in section.model_fields.items():
        member = _members(field.annotation)[0]
        if isinstance(member, type) and issubclass(member, BaseModel):
            lines += ["", f"{indent}{name}:", *_reference_lines(member, depth + 1)]
            continue
        lines += [f"{indent}# {' '.join(field.description.split())}"]
        default = "datasets/shapes.yaml" if field.is_required() else field.default
        value = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
        lines += [f"{indent}{name}: {value}"]
    return lines
