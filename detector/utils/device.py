"""Choosing the device and the floating-point type to compute with."""

from __future__ import annotations

import torch

from detector.utils.errors import InputError


def resolve_device(name: str) -> torch.device:
    """The device of that name, such as cuda:1; `auto` is cuda, else mps, else cpu.

    Raises InputError if this machine does not have the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        usable = name == "cpu" or device.type in ("cuda", "mps") and torch.empty(0, device=device) is not None
    except (RuntimeError, AssertionError):
        usable = False
    if not usable:
        raise InputError(f"device: {name!r} is not a device of this machine; try auto or cpu")
    return device


def device_name(device: torch.device) -> str:
    """For people: cpu, mps, or cuda with the name of the GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def resolve_precision(precision: str, device: torch.device) -> tuple[str, torch.dtype | None]:
    """The name and the autocast dtype (None: fp32, no autocast) of a `train.precision`.

    `auto` is bf16 if the GPU supports it or the CPU multiplies it in hardware, else fp16 on CUDA and fp32 elsewhere.
    Raises InputError for fp16 on a CPU.
    """
    if precision == "auto":
        if device.type == "cuda":
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            precision = "bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise InputError("train.precision: fp16 trains on CUDA only; use bf16, fp32 or auto on a CPU")
    return precision, {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _cpu_multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware. Otherwise bf16 is slower than fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
