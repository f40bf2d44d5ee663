"""timm's networks as backbones: any that has features at strides 8, 16 and 32; and at 4, where C2 is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from detector.models.backbones.backbone import LEVELS, Backbone
from detector.models.backbones.timm_stages import find_stages, flattened, root_of
from detector.models.norm import freeze_batch_norms
from detector.models.state_dict import first_line, is_file_name, load_strictly, read_state_dict
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean

# Networks whose features are sums over blocks that no norm has seen, by the beginning of their names → eps of the
# LayerNorm (norm0 .. norm3) that mmpretrain gives each feature: mmpretrain/models/backbones/convnext.py, davit.py,
# edgenext.py, mvit.py, swin_transformer.py, swin_transformer_v2.py, tinyvit.py. mmdetection has it in its swin.py, too.
NORM_EPS = {
    "convnext": 1e-6,
    "davit_": 1e-5,
    "edgenext_": 1e-6,
    "mvitv2_": 1e-6,
    "swin_": 1e-5,
    "swinv2_": 1e-5,
    "tiny_vit_": 1e-5,
}
# Attention over windows or strips of a fixed number of cells takes multiples of more pixels than C5's stride.
STRIDES = (32, 64, 128, 256)


class TimmBackbone(Backbone):
    """A Backbone around what timm calls a `features_only` network; its parameters have timm's names after `net.`.

    net: returns the list of C3, C4 and C5, or C2 to C5, as (N, C, h, w) or, where its `output_fmt` says NHWC, as
        (N, h, w, C).
    stride, norm_eps: as in Backbone. undecayed: as there, but by their names in timm's classification network.
    """

    def __init__(self, net: nn.Module, *, stride: int, undecayed: Iterable[str], norm_eps: float | None = None) -> None:
        super().__init__()
        self.net = net
        self.stride = stride
        self.norm_eps = norm_eps
        self.channels = _channels(net)
        published: Any = net.pretrained_cfg
        self.mean = tuple(published["mean"])
        self.std = tuple(published["std"])
        self.stages, self.before_stride_8 = find_stages(net)
        self.undecayed = frozenset(self._own_names(undecayed).values())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {str(level): feature for level, feature in enumerate(_features(self.net, images))}

    def from_classifier(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """As in Backbone; what timm's network has after C5 (a last norm, say) is left out with the classifier."""
        own = self._own_names(state)
        return {own[name]: tensor for name, tensor in state.items() if name in own}

    def _own_names(self, names: Iterable[str]) -> dict[str, str]:
        """A parameter's name in timm's classification network → its name here; without those that follow C5."""
        root, prefix = root_of(self.net)
        children = {name.split(".")[0] for name in root.state_dict()}
        flat = {name: flattened(name, children) for name in names}
        return {name: f"{prefix}{own}" for name, own in flat.items() if own.split(".")[0] in children}


def build_timm_backbone(name: str, *, weights: str | None, norm: str, finest_stride: int) -> TimmBackbone:
    """timm's network `name` (convnext_tiny, or with the tag of its published weights, convnext_tiny.fb_in22k).

    weights: None (random); DEFAULT (what timm publishes under the name); or a local file (.pth, .pt, .safetensors)
        with the state dict of timm's classification network, whose classifier is ignored.
    norm: frozen | batch | sync, for the network's batch norms; norms of other kinds stay as they are, and trainable.
    finest_stride: of the first feature: 8 (C3) or 4 (C2).
    Raises InputError: timm is not installed; unknown names (with the nearest); a network without the strides or
        for one image size only; unreadable or unfitting weights; a failed download.
    """
    timm = _import_timm(name)
    _check_names(timm, name, weights, norm)
    net = _create_features(timm, name, finest_stride)
    norm_eps = next((eps for start, eps in NORM_EPS.items() if name.startswith(start)), None)
    backbone = TimmBackbone(net, stride=_image_multiple(net, name), undecayed=_undecayed(timm, name), norm_eps=norm_eps)
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
        import timm  # optional, and slow to import
    except ModuleNotFoundError as missing:
        if missing.name != "timm":
            raise
        raise InputError(
            f"model.backbone.name: timm/{name} needs timm, which is not installed: pip install timm"
        ) from None
    return timm


def _check_names(timm: ModuleType, name: str, weights: str | None, norm: str) -> None:
    """Raises InputError: an unknown name, tag or weights, or a norm that timm's networks cannot have."""
    architecture, _, tag = name.partition(".")
    # create_model also takes hf-hub:... and local-dir:..., and would read those files with code that is not ours.
    if architecture not in timm.list_models():
        raise InputError(
            f"model.backbone.name: timm has no {architecture!r}; {did_you_mean(architecture, timm.list_models())}"
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise InputError(
            f"model.backbone.name: timm's {architecture} has no weights {tag!r}; {did_you_mean(tag, tags)}"
        )
    if weights is not None and weights != "DEFAULT" and not is_file_name(weights):
        raise InputError(
            f"model.backbone.weights: timm/{name} has no {weights!r}; valid: DEFAULT, a file (.pth, .safetensors), or "
            f"null; timm's other weights are chosen in model.backbone.name, as timm/{architecture}.<tag>"
        )
    if weights == "DEFAULT" and not timm.is_model_pretrained(architecture):
        raise InputError(
            f"model.backbone.weights: timm publishes no weights of {architecture}; "
            "set it to a file (.pth, .safetensors) or null"
        )
    if norm == "group":
        raise InputError(
            "model.backbone.norm: timm's networks keep the norms they were made with and cannot have group; "
            "set it to frozen, batch or sync"
        )


def _create(timm: ModuleType, name: str, **kwargs: Any) -> nn.Module:
    try:
        # Swin and similar networks then pad to whole windows instead of refusing all image sizes but one.
        return timm.create_model(name, strict_img_size=False, **kwargs)
    except TypeError:  # other networks have no such argument
        return timm.create_model(name, **kwargs)


def _create_features(timm: ModuleType, name: str, finest_stride: int) -> nn.Module:
    """The network up to C5, as TimmBackbone takes it."""
    try:
        network: Any = _create(timm, name, features_only=True)
        info = network.feature_info.info
    except (RuntimeError, AssertionError, AttributeError) as problem:
        raise InputError(
            f"model.backbone.name: timm's {name} cannot be a backbone: it gives no features ({problem})"
        ) from None
    index = {feature["reduction"]: i for i, feature in enumerate(info)}  # of several at a stride, the last
    has = ", ".join(map(str, index))
    if not index.keys() >= set(LEVELS[1:]):
        raise InputError(
            f"model.backbone.name: timm's {name} cannot be a backbone: it has features at stride {has}, not at 8, 16 "
            "and 32"
        )
    if finest_stride not in index:
        raise InputError(
            f"model.neck.finest: p2 needs features at stride 4, and timm's {name} has them at {has}; set it to p3"
        )
    levels = LEVELS[LEVELS.index(finest_stride) :]
    return _create(timm, name, features_only=True, out_indices=tuple(index[stride] for stride in levels))


def _channels(net: nn.Module) -> list[int]:
    """Channels of each feature."""
    info: Any = net.feature_info
    return list(info.channels())


def _features(net: nn.Module, images: Tensor) -> list[Tensor]:
    """The features as (N, C, h, w), the finest first."""
    features = net(images)
    if getattr(net, "output_fmt", "NCHW") == "NHWC":
        return [feature.permute(0, 3, 1, 2) for feature in features]
    return features


def _undecayed(timm: ModuleType, name: str) -> list[str]:
    """The parameters of timm's classification network that timm does not decay. Its features-only form does not say."""
    with torch.device("meta"):  # only names are needed
        network: Any = _create(timm, name)
    patterns = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    return [own for own, _ in network.named_parameters() if any(fnmatchcase(own, pattern) for pattern in patterns)]


def _image_multiple(net: nn.Module, name: str) -> int:
    """The smallest of STRIDES whose multiples `net` takes as height and width, found by trying: timm has no table.

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
        f"model.backbone.name: timm's {name} cannot be a backbone: it does not take images of any size "
        f"({2 * STRIDES[0]} x {3 * STRIDES[0]} px: {problems[0]})"
    )


@torch.no_grad()
def _try(net: nn.Module, height: int, width: int) -> str | None:
    """What goes wrong with an image of that size; None if nothing does."""
    try:
        features = _features(net, torch.zeros(1, 3, height, width))
    except (RuntimeError, AssertionError, ValueError) as problem:  # each network refuses in its own way
        return first_line(problem)
    sizes = [tuple(feature.shape[1:]) for feature in features]
    info: Any = net.feature_info
    right = [
        (channels, height // stride, width // stride)
        for channels, stride in zip(info.channels(), info.reduction(), strict=True)
    ]
    return None if sizes == right else f"features (channels, h, w) {sizes}, not {right}"


def _published(timm: ModuleType, name: str) -> dict[str, Tensor]:
    """The classification network's state dict as timm publishes it. Raises InputError if it cannot be downloaded."""
    try:
        return _create(timm, name, pretrained=True).state_dict()
    except Exception as problem:  # errors of the hub's client, of its HTTP library and of the system
        config = timm.get_pretrained_cfg(name)
        place = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        raise InputError(
            f"cannot download timm's weights of {name} ({first_line(problem)}); "
            f"fetch them elsewhere, from {place}, and set model.backbone.weights to the local file"
        ) from None
