"""torchvision's RetinaNet: its published weights, its former parameter names, and COCO's classes as it numbers them."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights

from detector.models.state_dict import download
from detector.utils.errors import InputError

DETECTORS = {
    "RetinaNet_ResNet50_FPN_Weights": RetinaNet_ResNet50_FPN_Weights,
    "RetinaNet_ResNet50_FPN_V2_Weights": RetinaNet_ResNet50_FPN_V2_Weights,
}
# A row of the class logits for each COCO category id 0..90, `__background__` and `N/A` among them.
COCO_ROWS: list[str] = list(RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
NOT_CLASSES = {"__background__", "N/A"}
COCO_IDS = {name: row for row, name in enumerate(COCO_ROWS) if name not in NOT_CLASSES}

FROZEN_EPS = 1e-5
# Before torchvision 0.13 a tower was Sequential(conv, relu, ...) and an FPN block a bare convolution.
_OLD_TOWER = re.compile(r"(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)")
_OLD_FPN = re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)")


def published_state(name: str) -> dict[str, Tensor]:
    """The state dict that torchvision publishes as "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1" or the like.

    Raises InputError: an unknown name (with the valid ones), a failed download.
    """
    enum_name, _, member = name.partition(".")
    if enum_name not in DETECTORS or member not in DETECTORS[enum_name].__members__:
        valid = ", ".join(f"{name}.{one}" for name, enum in DETECTORS.items() for one in enum.__members__)
        raise InputError(
            f"model.weights: no {name!r}; valid: {valid}, a run directory, a checkpoint, a file (.pth, .safetensors)"
        )
    return download(DETECTORS[enum_name][member], setting="model.weights")


def converted(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """A state dict in today's or the former names → in today's, and a phrase for the layout that it had."""
    renamed = _with_current_names(state)
    if renamed.keys() == state.keys():
        return renamed, "torchvision's RetinaNet layout"
    # the weights with former names were trained with frozen norms of eps 0
    return _with_eps_folded(renamed), "torchvision's RetinaNet layout with its old names"


def _with_current_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        if old := _OLD_TOWER.fullmatch(name):
            name = f"{old[1]}.{int(old[2]) // 2}.0.{old[3]}"
        elif old := _OLD_FPN.fullmatch(name):
            name = f"{old[1]}.0.{old[2]}"
        renamed[name] = tensor
    return renamed


def _with_eps_folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Norms of eps 0 → the same norms with FROZEN_EPS: w / sqrt(var) = w sqrt((var + eps) / var) / sqrt(var + eps).

    torchvision instead sets eps to 0 in the model that it loads its v1 weights into (`overwrite_eps`); our checkpoints
    could not tell which models that was done to.
    """
    folded = dict(state)
    for name, variance in state.items():
        weight = name.replace("running_var", "weight")
        fits = weight in state and state[weight].shape == variance.shape  # the caller reports what does not fit
        if name.endswith(".running_var") and fits:
            folded[weight] = state[weight] * torch.sqrt((variance + FROZEN_EPS) / variance)
    return folded
