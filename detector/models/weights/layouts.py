"""What a state dict is: whose names it has, and which classes it knows."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from detector.config.model import AnchorRule
from detector.models.weights import detectron2, torchvision
from detector.models.weights.torchvision import COCO_IDS, COCO_ROWS
from detector.utils.errors import InputError
from detector.utils.text import counted

CLS_LOGITS = "head.classification_head.cls_logits"
BBOX_REG = "head.regression_head.bbox_reg"
# Beginnings of names that only this project's detectors have: their anchors are not torchvision's.
OWN_PARTS = ("attention.", "backbone.norms.", "backbone.fpn.extra_blocks.downsample.")
PREDICTION = (f"{CLS_LOGITS}.weight", f"{CLS_LOGITS}.bias", f"{BBOX_REG}.weight", f"{BBOX_REG}.bias")


class Weights(NamedTuple):
    """Weights of a detector or of a backbone, and what is known about them."""

    source: str
    """The file they come from, or their published name."""
    layout: str
    """What they are, in words."""
    state: dict[str, Tensor]
    """Parameter name → tensor: in this project's names unless `backbone_only`."""
    num_rows: int = 0
    """Rows of the class logits for each anchor of a cell."""
    row_names: list[str] | None = None
    """Names of these rows in order, some of which may be no classes; None: unknown."""
    category_ids: dict[str, int] | None = None
    """Class name → COCO category id, of the rows that are classes; None: unknown."""
    settings: dict[str, Any] | None = None
    """The `model` section of the config they were trained with; None: unknown."""
    sizes_first: bool = False
    """The anchors of a cell are ordered by size, then ratio, instead of by ratio, then size."""
    anchor_rule: AnchorRule = "exact"
    """`model.anchors.rule` of the detector that they are from; without meaning if `backbone_only`."""
    backbone_only: bool = False
    """A classification network's state dict, in the names of its publisher."""

    @property
    def description(self) -> str:
        """What they are and how many classes they know."""
        if self.backbone_only:
            return self.layout
        if self.category_ids is None:
            return f"{self.layout}, {counted(self.num_rows, 'class')} of unknown names"
        coco = " (COCO's)" if self.category_ids == COCO_IDS else ""
        return f"{self.layout}, {counted(len(self.category_ids), 'class')}{coco}"


def published(name: str) -> Weights:
    """torchvision's weights "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1" or the like (also ".DEFAULT").

    Raises InputError: an unknown name (with the valid ones), a failed download.
    """
    weights = recognised(torchvision.published_state(name), name)
    return weights._replace(layout="torchvision's published RetinaNet")


def recognised(state: dict[str, Tensor], source: str) -> Weights:
    """The weights of a state dict in torchvision's RetinaNet layout (today's or the former one) or in detectron2's.

    This project's names are torchvision's: without any of OWN_PARTS they are taken for that. Any other state dict is
    taken for a classification network's. Neither layout has class names: 91 rows in torchvision's and 80 in
    detectron2's are taken for COCO's classes.
    Raises InputError if prediction layers are missing or contradict each other.
    """
    if f"{CLS_LOGITS}.weight" in state:
        state, layout = torchvision.converted(state)
        rows = _num_rows(state, source)
        if any(name.startswith(OWN_PARTS) for name in state):
            return Weights(source, "this project's RetinaNet layout", state, rows, anchor_rule="exact")
        if rows == len(COCO_ROWS):
            return Weights(source, layout, state, rows, COCO_ROWS, COCO_IDS, anchor_rule="torchvision")
        return Weights(source, layout, state, rows, anchor_rule="torchvision")
    if detectron2.CLS_SCORE in state:
        state, phrase = detectron2.converted(state)
        layout = f"detectron2's RetinaNet layout, {phrase}"
        rows = _num_rows(state, source)
        if rows == len(COCO_IDS):  # detectron2 numbers COCO's classes without gaps, in the order of their ids
            return Weights(source, layout, state, rows, list(COCO_IDS), COCO_IDS, sizes_first=True)
        return Weights(source, layout, state, rows, sizes_first=True)
    layout = "a classification network, of which only the backbone is taken"
    return Weights(source, layout, state, backbone_only=True)


def check_complete(state: dict[str, Tensor], source: str) -> None:
    """Raises InputError if a prediction layer is missing. state: in this project's names."""
    for name in PREDICTION:
        if name not in state:
            raise InputError(f"{source}: an incomplete RetinaNet, it has no {name}")


def _num_rows(state: dict[str, Tensor], source: str) -> int:
    """K, from the A * K rows of the logits and the A * 4 rows of the deltas. Raises InputError."""
    check_complete(state, source)
    rows, _, deltas, _ = (state[name].shape[:1].numel() for name in PREDICTION)
    if rows == 0 or deltas == 0 or deltas % 4 or rows % (deltas // 4):
        raise InputError(f"{source}: {rows} class logits and {deltas} box deltas a cell are no RetinaNet's")
    return rows // (deltas // 4)
