"""Weights of whole detectors in torchvision's layout: reading them, and giving them the dataset's classes."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights

from detector.models.files import download, is_file_name, load_strictly, read_state_dict
from detector.models.head import prior_bias
from detector.models.retinanet import RetinaNet
from detector.utils.errors import InputError

logger = logging.getLogger(__name__)

DETECTORS = {
    "RetinaNet_ResNet50_FPN_Weights": RetinaNet_ResNet50_FPN_Weights,
    "RetinaNet_ResNet50_FPN_V2_Weights": RetinaNet_ResNet50_FPN_V2_Weights,
}
# One slot for each COCO category id 0..90, `__background__` and `N/A` among them.
COCO_SLOTS = list(RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
NOT_CLASSES = {"__background__", "N/A"}

CLS_LOGITS = "head.classification_head.cls_logits"
BBOX_REG = "head.regression_head.bbox_reg"

# Before torchvision 0.13 a tower was Sequential(conv, relu, ...) and an FPN block a bare convolution.
_OLD_TOWER = re.compile(r"(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)")
_OLD_FPN = re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)")
FROZEN_EPS = 1e-5


def load_detector_weights(source: str) -> tuple[dict[str, Tensor], list[str] | None]:
    """State dict in torchvision's current names, and the names of its class slots (None: unknown).

    source: a member of torchvision's enums ("RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1" or ".DEFAULT"), or a
        local .pth or .safetensors file in torchvision's RetinaNet layout, today's or the old one of the
        published v1. A file of 91 slots is taken to have COCO's.
    Raises InputError: unknown name, failed download, unreadable file, another layout.
    """
    read = read_state_dict(source) if is_file_name(source) else download(_member(source), setting="model.weights")
    state = _with_current_names(read)
    for name in (f"{CLS_LOGITS}.weight", f"{CLS_LOGITS}.bias", f"{BBOX_REG}.weight"):
        if name not in state:
            raise InputError(f"{source}: not in torchvision's RetinaNet layout, it has no {name}")
    return state, COCO_SLOTS if _num_slots(state) == len(COCO_SLOTS) else None


def select_classes(
    state: dict[str, Tensor], from_names: Sequence[str], to_names: Sequence[str], *, prior: float = 0.01
) -> tuple[dict[str, Tensor], list[str]]:
    """`state` with the classification rows of the classes `to_names`, and those of them that it doesn't know.

    from_names: of the state's class slots. The rows (anchor-major: row a * K + k) of an unknown class are
    new: weights N(0, 0.01), bias the logit of `prior`. `state` itself is left as it is.
    """
    slots = {name: slot for slot, name in enumerate(from_names) if name not in NOT_CLASSES}
    missing = [name for name in to_names if name not in slots]
    known = [k for k, name in enumerate(to_names) if name in slots]
    picked = [slots[to_names[k]] for k in known]
    rows = {}
    for kind in ("weight", "bias"):
        old = state[f"{CLS_LOGITS}.{kind}"]
        old = old.view(-1, len(from_names), *old.shape[1:])
        new = old.new_empty(old.shape[0], len(to_names), *old.shape[2:])
        nn.init.normal_(new, std=0.01) if kind == "weight" else nn.init.constant_(new, prior_bias(prior))
        new[:, known] = old[:, picked]
        rows[f"{CLS_LOGITS}.{kind}"] = new.flatten(0, 1)
    return {**state, **rows}, missing


def load_into(
    model: RetinaNet,
    state: dict[str, Tensor],
    from_names: Sequence[str] | None,
    to_names: Sequence[str],
    *,
    source: str,
) -> list[str]:
    """Load what `load_detector_weights(source)` returned into a model of the classes `to_names`.

    Returns the names of the classes that start untrained, as the weights don't know them. Where from_names is None, the
    slots are taken to be `to_names`, in order. Raises InputError if their number differs, or
    another tensor's name or shape (the first ones are named).
    """
    missing: list[str] = []
    if from_names is not None:
        prior = model.head.classification_head.prior
        state, missing = select_classes(state, from_names, to_names, prior=prior)
    elif _num_slots(state) == len(to_names):
        logger.warning("%s: class names unknown, taken to be the dataset's %d in order", source, len(to_names))
    else:
        raise InputError(
            f"{source}: its class names are unknown, and it has {_num_slots(state):g} classes "
            f"where the dataset has {len(to_names)}"
        )
    load_strictly(model, state, source=source)
    return missing


def _member(source: str):
    enum_name, _, member = source.partition(".")
    if enum_name not in DETECTORS or member not in DETECTORS[enum_name].__members__:
        valid = ", ".join(f"{name}.{one}" for name, enum in DETECTORS.items() for one in enum.__members__)
        raise InputError(f"unknown detector weights {source!r}; valid: {valid}, a file (.pth, .safetensors)")
    return DETECTORS[enum_name][member]


def _num_slots(state: dict[str, Tensor]) -> float:
    """K, from the rows A * K of the logits and A * 4 of the deltas."""
    return state[f"{CLS_LOGITS}.weight"].shape[0] / (state[f"{BBOX_REG}.weight"].shape[0] / 4)


def _with_current_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Old names become today's; weights that have them were trained with frozen norms of eps 0."""
    renamed = {}
    for name, tensor in state.items():
        if old := _OLD_TOWER.fullmatch(name):
            name = f"{old[1]}.{int(old[2]) // 2}.0.{old[3]}"
        elif old := _OLD_FPN.fullmatch(name):
            name = f"{old[1]}.0.{old[2]}"
        renamed[name] = tensor
    return _fold_zero_eps(renamed) if renamed.keys() != state.keys() else renamed


def _fold_zero_eps(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same norms, for use with FROZEN_EPS: w / sqrt(var) = w sqrt((var + eps) / var) / sqrt(var + eps).

    torchvision instead sets eps to 0 in the model that it loads its v1 weights into (`overwrite_eps`); that
    would be a fact about the model that its checkpoints lack.
    """
    folded = dict(state)
    for name, variance in state.items():
        if name.endswith(".running_var"):
            weight = name.replace("running_var", "weight")
            folded[weight] = state[weight] * torch.sqrt((variance + FROZEN_EPS) / variance)
    return folded
