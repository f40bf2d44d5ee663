"""Which parts of a detector are not trained, in which epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from torch import nn

from detector.models.norm import FrozenBatchNorm2d
from detector.models.parts import module_paths
from detector.models.retinanet import RetinaNet
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean


def parts(model: RetinaNet) -> dict[str, list[nn.Module]]:
    """Name → modules of everything that can be frozen, see `module_paths`."""
    return {name: [model.get_submodule(path) for path in paths] for name, paths in module_paths(model).items()}


def resolve(model: RetinaNet, freeze: str | Sequence[str], unfreeze: Mapping[str, int]) -> list[str]:
    """The parts of `train.freeze`, checked.

    "auto": if the backbone has frozen norms, everything before stride 8, as in the published recipes that start from
    ImageNet (of a ResNet: the stem and layer1); else nothing.
    Raises InputError: an unknown part, unfreezing what is never frozen, nothing left to train at the start.
    """
    known = parts(model)
    if freeze == "auto":
        norms_frozen = any(isinstance(module, FrozenBatchNorm2d) for module in model.body.modules())
        freeze = [f"backbone.{stage}" for stage in model.body.before_stride_8] if norms_frozen else []
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
        raise InputError("train.freeze: the whole detector is frozen in the first epoch; leave out the head, say")
    return list(dict.fromkeys(freeze))


def set_frozen(model: RetinaNet, freeze: Sequence[str], unfreeze: Mapping[str, int], *, epoch: float) -> None:
    """Freeze the parts `freeze`, except those that `unfreeze` trains from an epoch on that is at most `epoch`.

    Epochs are counted from 1. A frozen part has no gradients, its norms keep their statistics, its dropout is off. A
    function of the epoch alone, so that a checkpoint need not record what is frozen when.
    """
    frozen = _frozen_modules(model, freeze, unfreeze, epoch)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(module not in frozen)
    model.frozen = [module for module in model.modules() if module in frozen]


def frozen_parameters(
    model: RetinaNet, freeze: Sequence[str], unfreeze: Mapping[str, int], *, epoch: float
) -> list[str]:
    """The names of the parameters that `set_frozen` would freeze."""
    frozen = _frozen_modules(model, freeze, unfreeze, epoch)
    return [
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if module in frozen
        for name, _ in module.named_parameters(recurse=False)
    ]


def _frozen_modules(
    model: RetinaNet, freeze: Sequence[str], unfreeze: Mapping[str, int], epoch: float
) -> set[nn.Module]:
    known = parts(model)
    trained_again = [name for name, first in unfreeze.items() if first <= epoch]
    return _modules_in(known, freeze) - _modules_in(known, trained_again)


def _modules_in(known: Mapping[str, list[nn.Module]], names: Sequence[str]) -> set[nn.Module]:
    """All modules of the parts `names`, to any depth."""
    return {module for name in names for root in known[name] for module in root.modules()}


def _holds(roots: list[nn.Module], parameter: nn.Parameter) -> bool:
    return any(parameter is own for root in roots for own in root.parameters())
