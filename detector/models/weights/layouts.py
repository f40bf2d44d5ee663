"""What a state dict is: which layout its names are in, and which classes it knows."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights

from detector.models.state_dict import download
from detector.models.weights import detectron2
from detector.utils.errors import InputError

DETECTORS = {
    "RetinaNet_ResNet50_FPN_Weights": RetinaNet_ResNet50_FPN_Weights,
    "RetinaNet_ResNet50_FPN_V2_Weights": RetinaNet_ResNet50_FPN_V2_Weights,
}
# One slot for each COCO category id 0..90, `__background__` and `N/A` among them.
COCO_SLOTS = list(RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
NOT_CLASSES = {"__background__", "N/A"}
COCO_IDS = {name: slot for slot, name in enumerate(COCO_SLOTS) if name not in NOT_CLASSES}

CLS_LOGITS = "head.classification_head.cls_logits"
BBOX_REG = "head.regression_head.bbox_reg"
PREDICTION = [f"{CLS_LOGITS}.weight", f"{CLS_LOGITS}.bias", f"{BBOX_REG}.weight", f"{BBOX_REG}.bias"]

# Before torchvision 0.13 a tower was Sequential(conv, relu, ...) and an FPN block a bare convolution.
_OLD_TOWER = re.compile(r"(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)")
_OLD_FPN = re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)")
FROZEN_EPS = 1e-5


class Weights(NamedTuple):
    """Weights of a detector or of a backbone, and what is known of them."""

    source: str
    """The file they are from, or their published name."""
    layout: str
    """What they are, in words."""
    state: dict[str, Tensor]
    """Parameter name → tensor: this project's names, but where `backbone_only`."""
    num_slots: int = 0
    """Class rows for each anchor."""
    slots: list[str] | None = None
    """Names of the class rows in order, some of which may be no classes; None: unknown."""
    category_ids: dict[str, int] | None = None
    """Of the classes among them, by name."""
    settings: dict | None = None
    """The `model` section of its configuration; None: unknown."""
    sizes_first: bool = False
    """The anchors of a cell are ordered by size, then ratio, instead of by ratio, then size."""
    backbone_only: bool = False
    """A classification network's state dict, in the names of its publisher."""

    @property
    def description(self) -> str:
        """What they are and how many classes they know."""
        if self.backbone_only:
            return self.layout
        if self.category_ids is None:
            return f"{self.layout}, {self.num_slots} classes of unknown names"
        coco = " (COCO's)" if self.category_ids == COCO_IDS else ""
        return f"{self.layout}, {len(self.category_ids)} classes{coco}"


def published(name: str) -> Weights:
    """torchvision's weights "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1" and such (also ".DEFAULT").

    Raises InputError: unknown name (with the valid ones), failed download.
    """
    enum_name, _, member = name.partition(".")
    if enum_name not in DETECTORS or member not in DETECTORS[enum_name].__members__:
        valid = ", ".join(f"{name}.{one}" for name, enum in DETECTORS.items() for one in enum.__members__)
        raise InputError(
            f"unknown detector weights {name!r}; valid: {valid}, a run directory, a checkpoint, "
            f"a file (.pth, .safetensors)"
        )
    state = download(DETECTORS[enum_name][member], setting="model.weights")
    return recognised(state, name)._replace(layout="torchvision's published RetinaNet")


def recognised(state: dict[str, Tensor], source: str) -> Weights:
    """The weights of a state dict in torchvision's RetinaNet layout (today's or the old one of the published v1) or in
    detectron2's; any other is taken to be a classification network's.

    Without the names of the classes, 91 slots of the first and 80 of the second are taken to be COCO's.
    Raises InputError where such a layout is incomplete.
    """
    if f"{CLS_LOGITS}.weight" in state:
        return _torchvision(state, source)
    if detectron2.CLS_SCORE in state:
        return _detectron2(state, source)
    layout = "a classification network, of which only the backbone is taken"
    return Weights(source, layout, state, backbone_only=True)


def _torchvision(state: dict[str, Tensor], source: str) -> Weights:
    renamed = _with_current_names(state)
    is_old = renamed.keys() != state.keys()
    if is_old:  # weights that have the old names were trained with frozen norms of eps 0
        renamed = _fold_zero_eps(renamed)
    layout = f"torchvision's RetinaNet layout{' with its old names' if is_old else ''}"
    num_slots = _num_slots(renamed, source)
    if num_slots != len(COCO_SLOTS):
        return Weights(source, layout, renamed, num_slots)
    return Weights(source, layout, renamed, num_slots, COCO_SLOTS, COCO_IDS)


def _detectron2(state: dict[str, Tensor], source: str) -> Weights:
    renamed, input_format = detectron2.converted(state)
    layout = f"detectron2's RetinaNet layout, {input_format}"
    num_slots = _num_slots(renamed, source)
    if num_slots != len(COCO_IDS):
        return Weights(source, layout, renamed, num_slots, sizes_first=True)
    # detectron2 numbers COCO's classes without gaps, in the order of their ids
    return Weights(source, layout, renamed, num_slots, list(COCO_IDS), COCO_IDS, sizes_first=True)


def check_complete(state: dict[str, Tensor], source: str) -> None:
    """Raises InputError if a prediction layer is missing."""
    for name in PREDICTION:
        if name not in state:
            raise InputError(f"{source}: an incomplete RetinaNet, it has no {name}")


def _num_slots(state: dict[str, Tensor], source: str) -> int:
    """K, from the rows A * K of the logits and A * 4 of the deltas. Raises InputError."""
    check_complete(state, source)
    rows, _, deltas, _ = (state[name].shape[:1].numel() for name in PREDICTION)
    if rows == 0 or deltas == 0 or deltas % 4 or rows % (deltas // 4):
        raise InputError(f"{source}: {rows} class logits and {deltas} box deltas a cell are no RetinaNet's")
    return rows // (deltas // 4)


def _with_current_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        if old := _OLD_TOWER.fullmatch(name):
            name = f"{old[1]}.{int(old[2]) // 2}.0.{old[3]}"
        elif old := _OLD_FPN.fullmatch(name):
            name = f"{old[1]}.0.{old[2]}"
        renamed[name] = tensor
    return renamed


def _fold_zero_eps(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same norms, for use with FROZEN_EPS: w / sqrt(var) = w sqrt((var + eps) / var) / sqrt(var + eps).

    torchvision instead sets eps to 0 in the model that it loads its v1 weights into (`overwrite_eps`); that
    would be a fact about the model that its checkpoints lack.
    """
    folded = dict(state)
    for name, variance in state.items():
        weight = name.replace("running_var", "weight")
        fits = weight in state and state[weight].shape == variance.shape  # what does not is told of later
        if name.endswith(".running_var") and fits:
            folded[weight] = state[weight] * torch.sqrt((variance + FROZEN_EPS) / variance)
    return folded
