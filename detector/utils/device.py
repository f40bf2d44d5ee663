"""Where and in which arithmetic to compute."""

from __future__ import annotations

import torch

from detector.utils.errors import InputError


def resolve_device(name: str) -> torch.device:
    """`auto` (cuda, else mps, else cpu) or a torch device name. Raises InputError if it is not there."""
    if name == "auto":
        available = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()), ("cpu", True)]
        name = next(kind for kind, there in available if there)
    try:
        device = torch.device(name)
        usable = name == "cpu" or device.type in ("cuda", "mps") and torch.empty(0, device=device) is not None
    except (RuntimeError, AssertionError):
        usable = False
    if not usable:
        raise InputError(f"device: {name!r} is not a device of this machine; try auto or cpu")
    return device


def resolve_precision(precision: str, device: torch.device) -> tuple[str, torch.dtype | None]:
    """The name and autocast dtype (None for fp32) of `train.precision` on a device. Raises InputError."""
    if precision == "auto":
        if device.type == "cuda":
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            precision = "bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise InputError("train.precision: fp16 trains on CUDA only; use bf16, fp32 or auto on a CPU")
    return precision, {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _cpu_multiplies_bf16() -> bool:
    """Whether the CPU has bf16 products in hardware: without them bf16 is slower than fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
