"""Sums over the processes of a training. With a single process a sum is its argument."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_across_processes(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes. Every process calls this and gets the sum."""
    if world_size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value
