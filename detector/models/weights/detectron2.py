"""detectron2's RetinaNet: its weights in this project's names, for this project's input and order of anchors.

Names, with b a block, c a convolution, s a stage and l a level:

    detectron2                                           here
    backbone.bottom_up.stem.conv1.weight, .norm.*        backbone.body.conv1.weight, bn1.*
    backbone.bottom_up.res<s>.<b>.conv<c>.weight         backbone.body.layer<s-1>.<b>.conv<c>.weight
    backbone.bottom_up.res<s>.<b>.conv<c>.norm.*         backbone.body.layer<s-1>.<b>.bn<c>.*
    backbone.bottom_up.res<s>.<b>.shortcut.weight        backbone.body.layer<s-1>.<b>.downsample.0.weight
    backbone.bottom_up.res<s>.<b>.shortcut.norm.*        backbone.body.layer<s-1>.<b>.downsample.1.*
    backbone.fpn_lateral<l>.*, backbone.fpn_output<l>.*  backbone.fpn.inner_blocks.<l-3>.0.*, layer_blocks.<l-3>.0.*
    backbone.top_block.p6.*, p7.*                        backbone.fpn.extra_blocks.p6.*, p7.*
    head.cls_subnet.<i>.*, the n-th convolution          head.classification_head.conv.<n>.0.*; a norm after it: <n>.1.*
    head.bbox_subnet.<i>.*                               head.regression_head.conv.<n>.0.*
    head.cls_score.*, head.bbox_pred.*                   head.classification_head.cls_logits.*,
                                                         head.regression_head.bbox_reg.*
    pixel_mean, pixel_std, anchor_generator.*            left out: no weights

Input: theirs is (pixel - pixel_mean) / pixel_std of BGR or RGB in 0..255, ours (RGB / 255 - mean) / std. Both subtract
ImageNet's mean, so the inputs differ in the order of the channels and by a factor for each. `with_our_input` moves both
into the first convolution; the result is exact.

Anchors of a cell: theirs are ordered by size, then ratio; ours (torchvision's) by ratio, then size. `rows_by_ratio`
reorders them. Where they lie is model.anchors.rule "exact".

The stride of a bottleneck is in its 1x1 convolution in detectron2's own (MSRA) ResNets, and in its 3x3 convolution here
and in the networks that detectron2 converts from torchvision. Weights do not show which; MSRA's need fine-tuning.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from detector.models.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD

CLS_SCORE = "head.cls_score.weight"  # the layout is recognised by this name

_FIRST = "backbone.body.conv1.weight"
_FIRST_NORM = ("backbone.body.bn1.weight", "backbone.body.bn1.running_var")
_NOT_WEIGHTS = ("pixel_mean", "pixel_std", "anchor_generator.")
_RENAMED: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"backbone\.bottom_up\.", "backbone.body."),
    (r"body\.stem\.", "body."),
    (r"body\.res(\d)\.", lambda m: f"body.layer{int(m[1]) - 1}."),
    (r"body\.(.*)conv(\d)\.norm\.", r"body.\1bn\2."),
    (r"shortcut\.norm\.", "downsample.1."),
    (r"shortcut\.", "downsample.0."),
    (r"fpn_lateral(\d)\.(norm)?", lambda m: f"fpn.inner_blocks.{int(m[1]) - 3}.{'1' if m[2] else '0.'}"),
    (r"fpn_output(\d)\.(norm)?", lambda m: f"fpn.layer_blocks.{int(m[1]) - 3}.{'1' if m[2] else '0.'}"),
    (r"backbone\.top_block\.", "backbone.fpn.extra_blocks."),
    (r"head\.cls_subnet\.", "head.classification_head.conv."),
    (r"head\.bbox_subnet\.", "head.regression_head.conv."),
    (r"head\.cls_score\.", "head.classification_head.cls_logits."),
    (r"head\.bbox_pred\.", "head.regression_head.bbox_reg."),
]

# The gain of the first layer in a channel is ||kernel|| * norm.weight / sqrt(running_var). Activations after the norm
# are of order 1, so for an input of order 1 the gain is of order 0.1. An input that is not divided by its std is 57
# times larger, so the gain is of order 0.002. The threshold is between the two; it is compared with the median over the
# channels, which dead channels do not move.
_LEAST_GAIN_FOR_STANDARDISED_INPUT = 0.02


def converted(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """A state dict in detectron2's layout → in ours except for the order of the anchors, and a phrase on its input."""
    towers = _tower_layers(state)
    renamed = {}
    for name, tensor in state.items():
        if not name.startswith(_NOT_WEIGHTS):
            name = towers.get(name, name)
            for pattern, replacement in _RENAMED:
                name = re.sub(pattern, replacement, name)
            renamed[name] = tensor
    mean, std, evidence = _input(state, renamed)
    if _FIRST not in renamed or renamed[_FIRST].dim() != 4 or renamed[_FIRST].shape[1] != 3:
        return renamed, "whose first convolution is not a ResNet's"
    is_bgr = bool(mean[0] < mean[2])
    order = "BGR" if is_bgr else "RGB"
    phrase = f"for {order} input with std {', '.join(f'{s:g}' for s in std.tolist())} (by {evidence})"
    if is_bgr or not torch.allclose(std, 255 * torch.tensor(IMAGENET_STD)):
        renamed[_FIRST] = with_our_input(renamed[_FIRST], std, is_bgr)
        phrase += ", now in the first convolution"
    if not torch.allclose(mean.sort().values, 255 * torch.tensor(sorted(IMAGENET_MEAN)), atol=0.5):
        phrase += "; its pixel_mean is not ImageNet's, so that its detections only become right with fine-tuning"
    elif is_bgr and "backbone.body.layer1.0.conv3.weight" in renamed:
        phrase += "; if it strides in its 1x1 convolutions (MSRA), its detections only become right with fine-tuning"
    return renamed, phrase


def with_our_input(kernel: Tensor, std: Tensor, is_bgr: bool) -> Tensor:
    """The first convolution (C, 3, h, w) for images (RGB / 255 - mean) / IMAGENET_STD instead of (pixel - mean) / std.

    std: (3,), of pixels in 0..255, in the order of the kernel's channels.
    """
    if is_bgr:
        kernel, std = kernel.flip(1), std.flip(0)
    return kernel * (255 * torch.tensor(IMAGENET_STD) / std).view(1, 3, 1, 1).to(kernel.dtype)


def rows_by_ratio(rows: Tensor, scales: int, ratios: int) -> Tensor:
    """(scales * ratios * X, ...) with the anchors ordered by size, ratio → ordered by ratio, size."""
    return rows.unflatten(0, (scales, ratios, -1)).transpose(0, 1).flatten(0, 2)


def _tower_layers(state: dict[str, Tensor]) -> dict[str, str]:
    """Names of the towers' parameters → with the index in the Sequential (which counts ReLUs) replaced.

    Instead stands the number of the convolution, then 0 for itself or 1 for its norm.
    """
    names = {}
    for tower in ("head.cls_subnet", "head.bbox_subnet"):
        layers = {name: re.fullmatch(rf"{re.escape(tower)}\.(\d+)\.(\w+)", name) for name in state}
        convolutions = sorted(int(m[1]) for name, m in layers.items() if m and state[name].dim() == 4)
        for name, m in layers.items():
            if m:
                before = [index for index in convolutions if index <= int(m[1])]
                is_norm = int(m[1]) not in convolutions
                names[name] = f"{tower}.{len(before) - 1}.{int(is_norm)}.{m[2]}"
    return names


def _input(state: dict[str, Tensor], renamed: dict[str, Tensor]) -> tuple[Tensor, Tensor, str]:
    """Mean and std (3,) of the input in 0..255, in the order of its channels, and what they were inferred from."""
    if all(key in state and state[key].numel() == 3 for key in ("pixel_mean", "pixel_std")):
        return state["pixel_mean"].flatten().float(), state["pixel_std"].flatten().float(), "its pixel_mean, pixel_std"
    mean, std = 255 * torch.tensor(IMAGENET_MEAN), 255 * torch.tensor(IMAGENET_STD)
    kernel, scale, variance = (renamed.get(name) for name in (_FIRST, *_FIRST_NORM))
    if kernel is None or scale is None or variance is None or not scale.shape == variance.shape == kernel.shape[:1]:
        return mean, std, "assumption"
    gain = (kernel.float().flatten(1).norm(dim=1) * scale.abs() / (variance + 1e-5).sqrt()).median()
    if gain < _LEAST_GAIN_FOR_STANDARDISED_INPUT:
        mean, std = mean.flip(0), torch.ones(3)
    return mean, std, f"the gain of its first layer, {gain:.1g}"
