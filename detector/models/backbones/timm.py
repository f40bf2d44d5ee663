"""timm's networks as backbones: any that has features at strides 8, 16 and 32."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from detector.models.backbones.backbone import Backbone
from detector.models.norm import freeze_batch_norms
from detector.models.state_dict import first_line, is_file_name, load_strictly, read_state_dict
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean

PREFIX = "timm/"
LEVELS = (8, 16, 32)
# Windows, strips and halos of a fixed number of cells want images that are multiples of more than C5's stride.
STRIDES = (32, 64, 128, 256)


class TimmBackbone(Backbone):
    """A Backbone around what timm calls a `features_only` network, whose parameters have its names after `net.`.

    net: returns the list of C3, C4 and C5, as (N, C, h, w) or, where its `output_fmt` says so, as (N, h, w, C).
    stride: as in Backbone.
    """

    def __init__(self, net: nn.Module, *, stride: int) -> None:
        super().__init__()
        self.net = net
        self.stride = stride
        self.channels = list(net.feature_info.channels())
        self.mean = tuple(net.pretrained_cfg["mean"])
        self.std = tuple(net.pretrained_cfg["std"])
        self.stages, self.before_stride_8 = _stages(net)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {str(level): feature for level, feature in enumerate(_features(self.net, images))}

    def from_classifier(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """As in Backbone; what timm's network has after C5 (a last norm, say) goes with the classifier."""
        root, prefix = _root(self.net)
        children = {name.split(".")[0] for name in root.state_dict()}
        renamed = {_own_name(name, children): tensor for name, tensor in state.items()}
        return {f"{prefix}{name}": tensor for name, tensor in renamed.items() if name.split(".")[0] in children}


def build_timm_backbone(name: str, *, weights: str | None, norm: str) -> TimmBackbone:
    """timm's network `name` (convnext_tiny, or with the tag of its published weights, convnext_tiny.fb_in22k).

    weights: None (random), DEFAULT (what timm publishes under the name), or a local file (.pth, .pt, .safetensors)
        with the state dict of timm's classification network, whose classifier is ignored.
    norm: frozen | batch | sync, for the network's batch norms; its other norms stay as they are, and trainable.
    Raises InputError: timm is not installed; unknown names (with the nearest); a network without the three strides
        or of one image size; unreadable or unfitting weights; failed download.
    """
    timm = _import_timm(name)
    _check_names(timm, name, weights, norm)
    net = _create_features(timm, name)
    backbone = TimmBackbone(net, stride=_image_multiple(net, name))
    if weights is not None:
        state = read_state_dict(weights) if is_file_name(weights) else _published(timm, name)
        load_strictly(backbone, backbone.from_classifier(state), source=weights)
    if norm == "frozen":
        freeze_batch_norms(net)
    elif norm == "sync":
        timm.layers.convert_sync_batchnorm(net)
    return backbone


def _import_timm(name: str) -> ModuleType:
    try:
        import timm  # an extra, and slow to import: only for those who ask for it
    except ModuleNotFoundError as missing:
        if missing.name != "timm":
            raise
        raise InputError(
            f"model.backbone.name: {PREFIX}{name} needs timm, which is not installed: pip install timm"
        ) from None
    return timm


def _check_names(timm: ModuleType, name: str, weights: str | None, norm: str) -> None:
    architecture, _, tag = name.partition(".")
    # create_model would also take hf-hub:... and local-dir:..., whose code for reading files isn't ours.
    if architecture not in timm.list_models():
        raise InputError(f"timm has no model {architecture!r}; {did_you_mean(architecture, timm.list_models())}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise InputError(f"timm's {architecture} has no weights {tag!r}; {did_you_mean(tag, tags)}")
    if weights is not None and weights != "DEFAULT" and not is_file_name(weights):
        raise InputError(
            f"{PREFIX}{name} has no weights {weights!r}; valid: DEFAULT, a file (.pth, .safetensors), or null; "
            f"others of timm's are written in model.backbone.name, as {PREFIX}{architecture}.<tag>"
        )
    if weights == "DEFAULT" and not timm.is_model_pretrained(architecture):
        raise InputError(
            f"timm publishes no weights of {architecture}; "
            "set model.backbone.weights to a file (.pth, .safetensors) or null"
        )
    if norm == "group":
        raise InputError(
            "norm 'group' is not for timm's networks, which keep the norms they were made with; "
            "set model.backbone.norm to frozen, batch or sync"
        )
    if norm not in ("frozen", "batch", "sync"):
        raise InputError(f"unknown norm {norm!r}; valid for timm's networks: frozen, batch, sync")


def _create(timm: ModuleType, name: str, **kwargs: Any) -> nn.Module:
    try:
        # Swin and its like then pad to whole windows, instead of refusing all image sizes but one.
        return timm.create_model(name, strict_img_size=False, **kwargs)
    except TypeError:  # no such argument: any other network
        return timm.create_model(name, **kwargs)


def _create_features(timm: ModuleType, name: str) -> nn.Module:
    """The network up to C5, as TimmBackbone takes it."""
    try:
        info = _create(timm, name, features_only=True).feature_info.info
    except (RuntimeError, AssertionError, AttributeError) as problem:
        raise InputError(f"timm's {name} cannot be a backbone: it gives no features ({problem})") from None
    index = {feature["reduction"]: i for i, feature in enumerate(info)}  # of several at a stride, the last
    if not index.keys() >= set(LEVELS):
        has = ", ".join(map(str, index))
        raise InputError(f"timm's {name} cannot be a backbone: it has features at stride {has}, not at 8, 16 and 32")
    return _create(timm, name, features_only=True, out_indices=tuple(index[stride] for stride in LEVELS))


def _features(net: nn.Module, images: Tensor) -> list[Tensor]:
    """C3, C4, C5 as (N, C, h, w)."""
    features = net(images)
    if getattr(net, "output_fmt", "NCHW") == "NHWC":
        return [feature.permute(0, 3, 1, 2) for feature in features]
    return features


def _image_multiple(net: nn.Module, name: str) -> int:
    """The least of STRIDES whose multiples `net` takes as height and width: tried out, as nothing in timm tells.

    Raises InputError if there is none, as for networks with position embeddings of one image size.
    """
    training = net.training
    net.eval()  # batch statistics must not move
    problems = []
    for stride in STRIDES:
        problem = _try(net, 2 * stride, 3 * stride)
        if problem is None:
            net.train(training)
            return stride
        problems.append(problem)
    raise InputError(
        f"timm's {name} cannot be a backbone: it does not take images of any size "
        f"({2 * STRIDES[0]} x {3 * STRIDES[0]} px: {problems[0]})"
    )


@torch.no_grad()
def _try(net: nn.Module, height: int, width: int) -> str | None:
    """What is wrong with what `net` makes of an image of that size."""
    try:
        features = _features(net, torch.zeros(1, 3, height, width))
    except (RuntimeError, AssertionError, ValueError) as problem:  # each network has its own way to refuse
        return first_line(problem)
    sizes = [tuple(feature.shape[1:]) for feature in features]
    right = [
        (channels, height // stride, width // stride)
        for channels, stride in zip(net.feature_info.channels(), LEVELS, strict=True)
    ]
    return None if sizes == right else f"features (channels, h, w) {sizes}, not {right}"


def _published(timm: ModuleType, name: str) -> dict[str, Tensor]:
    try:
        return _create(timm, name, pretrained=True).state_dict()
    except Exception as problem:  # the hub's client raises its own, its HTTP library's and the system's
        config = timm.get_pretrained_cfg(name)
        place = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        raise InputError(
            f"cannot download timm's weights of {name} ({first_line(problem)}); "
            f"fetch them elsewhere, from {place}, and set model.backbone.weights to the local file"
        ) from None


def _root(net: nn.Module) -> tuple[nn.Module, str]:
    """The module whose children are the stages, and the start of its parameters' names in a TimmBackbone.

    timm wraps some of its networks once more.
    """
    children = list(net.named_children())
    if len(children) > 1:
        return net, "net."
    ((name, child),) = children
    return child, f"net.{name}."


def _own_name(name: str, children: Collection[str]) -> str:
    """`stages.0.blocks.1` → `stages_0.blocks.1`, where there is such a child: timm flattens what it cuts off."""
    flat = name.replace(".", "_", 1)
    return flat if flat.split(".")[0] in children else name


def _stages(net: nn.Module) -> tuple[dict[str, list[str]], list[str]]:
    """`stages` and `before_stride_8` of a Backbone.

    The stages are the modules whose names are, but for numbers, that of the one with C3 (layer2: layer1, layer2, ...);
    what stands between two of them belongs to the first, and the stem ends with stride 4 at the latest.
    """
    root, prefix = _root(net)
    module_at = {feature["reduction"]: feature["module"] for feature in net.feature_info.info}
    paths = _children(root, module_at[8])
    names = list(paths)
    starts, stride_8 = _cuts(names, {stride: _place(module, names) for stride, module in module_at.items()})
    stages = {
        "stem" if start == 0 else names[start]: [prefix + paths[name] for name in names[start:end]]
        for start, end in pairwise([0, *starts, len(names)])
    }
    return stages, [stage for stage, start in zip(stages, [0, *starts], strict=True) if start < stride_8]


def _cuts(names: list[str], places: dict[int, int | None]) -> tuple[list[int], int]:
    """Where in `names` a stage begins, without the stem's 0, and where stride 8 does. places: stride → its last."""
    c3 = places[8]
    if c3 is None:  # timm's table has other names: where the strides begin is not known
        return list(range(1, len(names))), 0
    finer = [stride for stride in places if stride < 8]
    c2 = places[max(finer)] if finer else None
    stride_8 = min(c2 + 1, c3) if c2 is not None else c3 if finer else 0
    like_c3 = re.compile(re.sub(r"\d+", r"\\d+", re.escape(names[c3])))
    alike = [i for i, name in enumerate(names) if like_c3.fullmatch(name)]
    first = max(1, min(*alike, c3 if c2 is None else c2 + 1))
    return [first, *(i for i in alike if i > first)], stride_8


def _children(root: nn.Module, module: str) -> dict[str, str]:
    """Name → path of the children of `root`, with the children of one that is a mere list in its place, if `module` is
    one of them (of `blocks`, with `blocks.2`: blocks_0 → blocks.0, ...)."""
    paths = {}
    for name, child in root.named_children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)) and module.startswith(f"{name}."):
            paths |= {f"{name}_{i}": f"{name}.{i}" for i, _ in child.named_children()}
        else:
            paths[name] = name
    return paths


def _place(module: str, names: list[str]) -> int | None:
    """Which of `names` has the module; None: none."""
    name = _own_name(module, names).split(".")[0]
    return names.index(name) if name in names else None
