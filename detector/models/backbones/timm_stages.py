"""The stages of a timm network, and the names of its parameters: timm has a table of strides, but none of stages."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import pairwise
from typing import Any

from torch import nn


def root_of(net: nn.Module) -> tuple[nn.Module, str]:
    """The module whose children form the stages, and the prefix of its parameters' names in a TimmBackbone.

    timm wraps some of its networks in one more module.
    """
    children = list(net.named_children())
    if len(children) > 1:
        return net, "net."
    ((name, child),) = children
    return child, f"net.{name}."


def flattened(name: str, children: Collection[str]) -> str:
    """`stages.0.blocks.1` → `stages_0.blocks.1` where `stages_0` is one of `children`.

    timm joins the first two parts so in the networks that it cuts off at C5.
    """
    flat = name.replace(".", "_", 1)
    return flat if flat.split(".")[0] in children else name


def find_stages(net: nn.Module) -> tuple[dict[str, list[str]], list[str]]:
    """`stages` and `before_stride_8` of a Backbone, for timm's features-only network `net`.

    The stages are the modules named like the one that puts out C3, numbers aside (layer2: layer1, layer2, ...). What
    stands between two of them belongs to the first. The stem ends at stride 4 at the latest.
    """
    root, prefix = root_of(net)
    info: Any = net.feature_info
    module_at: dict[int, str] = {feature["reduction"]: feature["module"] for feature in info.info}
    paths = _child_paths(root, module_at[8])
    names = list(paths)
    starts, stride_8 = _cuts(names, {stride: _index(module, names) for stride, module in module_at.items()})
    stages = {
        "stem" if start == 0 else names[start]: [prefix + paths[name] for name in names[start:end]]
        for start, end in pairwise([0, *starts, len(names)])
    }
    return stages, [stage for stage, start in zip(stages, [0, *starts], strict=True) if start < stride_8]


def _cuts(names: list[str], last_at: dict[int, int | None]) -> tuple[list[int], int]:
    """The indices in `names` at which a stage begins (the stem's 0 left out), and the index at which stride 8 begins.

    last_at: stride → index of the last module at that stride; None where timm's table has a name of its own for it.
    """
    c3 = last_at[8]
    if c3 is None:  # every module is a stage, and where stride 8 begins is unknown
        return list(range(1, len(names))), 0
    finer = [stride for stride in last_at if stride < 8]
    c2 = last_at[max(finer)] if finer else None
    stride_8 = min(c2 + 1, c3) if c2 is not None else c3 if finer else 0
    like_c3 = re.compile(re.sub(r"\d+", r"\\d+", re.escape(names[c3])))
    alike = [i for i, name in enumerate(names) if like_c3.fullmatch(name)]
    first = max(1, min(*alike, c3 if c2 is None else c2 + 1))
    return [first, *(i for i in alike if i > first)], stride_8


def _child_paths(root: nn.Module, module: str) -> dict[str, str]:
    """Name → path of each child of `root`; the list that holds `module` is replaced by its items.

    With module `blocks.2`, the items of `blocks` are blocks_0 → blocks.0, blocks_1 → blocks.1, ...
    """
    paths: dict[str, str] = {}
    for name, child in root.named_children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)) and module.startswith(f"{name}."):
            paths |= {f"{name}_{i}": f"{name}.{i}" for i, _ in child.named_children()}
        else:
            paths[name] = name
    return paths


def _index(module: str, names: list[str]) -> int | None:
    """The index in `names` of the module; None if it is not there."""
    name = flattened(module, names).split(".")[0]
    return names.index(name) if name in names else None
