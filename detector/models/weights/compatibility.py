"""Whether a backbone's weights are of the configured architecture; if not, of which."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.models.backbones.torchvision import BACKBONES, build_torchvision_backbone
from detector.models.state_dict import differences, first_of, without_counters
from detector.models.weights.layouts import Weights
from detector.utils.errors import InputError
from detector.utils.text import shortened

BODY = "backbone.body."
LEAST_SHARE = 0.5  # of the backbone's numbers, in the model and in the file, that must fit


def check_backbone(own: dict[str, Tensor], given: dict[str, Tensor], weights: Weights) -> list[str]:
    """Warnings about loading the tensors `given` into a model whose tensors are `own`, both in this project's names.

    weights: what `given` was read as.
    Raises InputError if it is another network of BACKBONES; if less than LEAST_SHARE of the backbone fits; and if its
    norms are of another kind: their scales would be loaded although they mean something else.
    """
    own, given = ({n: t for n, t in state.items() if n.startswith(BODY)} for state in (own, given))
    wrong = differences(own, given)
    if not wrong:
        return []
    fitting = {name: tensor for name, tensor in own.items() if name in given and given[name].shape == tensor.shape}
    of_own, of_given = (_numbers(fitting) / max(1, _numbers(state)) for state in (own, given))
    _check_norms(fitting, own, given, weights.source)
    name = _network(weights, given)
    hint = f"these are the weights of model.backbone.name={name}; " if name else _unknown(weights, fitting)
    if name or min(of_own, of_given) < LEAST_SHARE:
        raise InputError(
            f"{weights.source}: another backbone than the configured one: {of_own:.0%} of the model's and "
            f"{of_given:.0%} of the file's fits; {hint}first that differ: {first_of(wrong)}"
        )
    return [
        f"{of_own:.0%} of the backbone is loaded, {of_given:.0%} of the file's; {hint}first that differ: "
        f"{first_of(wrong)}"
    ]


def _check_norms(fitting: dict[str, Tensor], own: dict[str, Tensor], given: dict[str, Tensor], source: str) -> None:
    """Raises InputError for group norm in the place of batch norm or the reverse.

    Batch norm has running statistics, group norm has none; their scale and shift have the same names.
    """
    for name in fitting:
        mean = name.removesuffix("weight") + "running_mean"
        if name.endswith(".weight") and (mean in own) != (mean in given):
            has, right = ("no ", "group") if mean in own else ("", "frozen, batch or sync")
            raise InputError(f"{source}: its backbone has {has}running statistics; set model.backbone.norm to {right}")


def _network(weights: Weights, given: dict[str, Tensor]) -> str | None:
    """The network of BACKBONES whose weights these are; None: none of them."""
    for name in BACKBONES:
        with torch.device("meta"):  # only shapes are needed
            body = build_torchvision_backbone(name, weights=None, norm="batch", finest_stride=8)
        theirs = body.from_classifier(weights.state) if weights.backbone_only else given
        theirs = {name.removeprefix(BODY): tensor for name, tensor in without_counters(theirs).items()}
        if not differences(body.state_dict(), theirs):
            return name
    return None


def _unknown(weights: Weights, fitting: dict[str, Tensor]) -> str:
    """The start of a clause about a file in which nothing is recognised; empty if something is."""
    if fitting or not weights.backbone_only:
        return ""
    return (
        f"it is no checkpoint of this project, no RetinaNet in torchvision's or detectron2's layout, no ImageNet "
        f"network with the backbone's names, as it has {shortened(list(weights.state), 3)}; "
    )


def _numbers(state: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point())
