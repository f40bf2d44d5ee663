"""Which parts of a detector are not trained, from epoch to epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from torch import nn

from detector.models.norm import FrozenBatchNorm2d
from detector.models.retinanet import RetinaNet
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean


def parts(model: RetinaNet) -> dict[str, list[nn.Module]]:
    """Name → modules of everything that can be frozen: the backbone, its stages, the FPN, the head, its halves."""
    body = model.backbone["body"]
    stages = {f"backbone.{stage}": [body.get_submodule(c) for c in names] for stage, names in body.stages.items()}
    return {
        "backbone": [body],
        **stages,
        "fpn": [model.backbone["fpn"]],
        "head": [model.head],
        "head.classification_head": [model.head.classification_head],
        "head.regression_head": [model.head.regression_head],
    }


def resolve(model: RetinaNet, freeze: str | Sequence[str], unfreeze: Mapping[str, int]) -> list[str]:
    """The parts of `train.freeze`, checked. "auto": where the backbone has frozen norms, what comes before stride 8, as
    in the published recipes that start from ImageNet (of a ResNet: the stem and layer1); else nothing.

    Raises InputError: unknown parts, unfreezing of what is never frozen, nothing left to train at the start.
    """
    known = parts(model)
    if freeze == "auto":
        body = model.backbone["body"]
        norms_frozen = any(isinstance(module, FrozenBatchNorm2d) for module in body.modules())
        freeze = [f"backbone.{stage}" for stage in body.before_stride_8] if norms_frozen else []
    for setting, names in (("freeze", freeze), ("unfreeze", unfreeze)):
        for name in names:
            if name not in known:
                raise InputError(f"train.{setting}: no part of this detector is {name!r}; {did_you_mean(name, known)}")
    frozen = set(frozen_parameters(model, freeze, {}, epoch=1))
    inside = {name: {n for n, p in model.named_parameters() if _holds(known[name], p)} for name in unfreeze}
    for name in unfreeze:
        if not inside[name] & frozen:
            has = ", ".join(freeze) or "nothing"
            raise InputError(f"train.unfreeze: {name} is never frozen; train.freeze has {has}: add it there")
    for one, other in combinations(unfreeze, 2):
        if inside[one] & inside[other]:
            raise InputError(f"train.unfreeze: {one} and {other} overlap; name each stage once")
    if len(frozen) == len(list(model.parameters())):
        raise InputError("train.freeze: the whole detector is frozen in the first epoch; leave it the head, say")
    return list(dict.fromkeys(freeze))


def set_frozen(model: RetinaNet, freeze: Sequence[str], unfreeze: Mapping[str, int], *, epoch: float) -> None:
    """Freeze the parts `freeze`, except those that `unfreeze` trains from some epoch up to `epoch` (from 1) on.

    A frozen part has no gradients, its norms keep their statistics, its dropout is off. A function of the epoch alone,
    so that a resumed training needs nothing else.
    """
    frozen = _frozen_modules(model, freeze, unfreeze, epoch)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(module not in frozen)
    model.frozen = [module for module in model.modules() if module in frozen]


def frozen_parameters(
    model: RetinaNet, freeze: Sequence[str], unfreeze: Mapping[str, int], *, epoch: float
) -> list[str]:
    """The names of those that `set_frozen` would freeze."""
    frozen = _frozen_modules(model, freeze, unfreeze, epoch)
    return [
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if module in frozen
        for name, _ in module.named_parameters(recurse=False)
    ]


def _frozen_modules(model: RetinaNet, freeze: Sequence[str], unfreeze: Mapping[str, int], epoch: float) -> set:
    known = parts(model)
    trained_again = [name for name, first in unfreeze.items() if first <= epoch]
    frozen, trained = (
        {m for n in names for root in known[n] for m in root.modules()} for names in (freeze, trained_again)
    )
    return frozen - trained


def _holds(roots: list[nn.Module], parameter: nn.Parameter) -> bool:
    return any(parameter is own for root in roots for own in root.parameters())
