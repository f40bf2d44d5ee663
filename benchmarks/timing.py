"""Measuring alternatives side by side: they run in turns in one process, so that a busy machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

WARM_UP = 3  # rounds that are not measured


def devices() -> list[torch.device]:
    """The CPU, and the GPU if there is one."""
    return [torch.device(name) for name in (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])]


def milliseconds(
    steps: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, warm_up: int = WARM_UP
) -> dict[str, np.ndarray]:
    """Run all steps in turns; name → (rounds,) duration of each run in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warm_up + rounds):
        for name, step in steps.items():
            taken = _seconds(step, device)
            if turn >= warm_up:
                times[name].append(1e3 * taken)
    return {name: np.array(taken) for name, taken in times.items()}


def spread(values: np.ndarray) -> str:
    """The median and, in brackets, the 10 % and 90 % quantiles."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return f"{middle:8.2f} [{low:.2f} .. {high:.2f}]"


def _seconds(step: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
