"""How much memory is available, and the most that this process has used. All figures are bytes."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import torch

# Files of a control group: its limit, its usage, and the line of memory.stat with the file cache that can be dropped.
CGROUP_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
CGROUP_V2 = ("memory.max", "memory.current", "inactive_file")


def available_memory(device: torch.device) -> int | None:
    """Bytes that are free on a GPU, or on the CPU for this process (a container may allow less than the system has).

    None if that is not known.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    system = _system_memory() if device.type == "cpu" else None
    return None if system is None else min([system, *cgroup_headroom()])


def cgroup_headroom(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that each control group around this process still allows; empty without limits (containers have them)."""
    headroom = []
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):  # version 2 has no controller here
            continue
        root, names = (mount / "memory", CGROUP_V1) if controllers else (mount, CGROUP_V2)
        folder = root / path.lstrip("/")
        # The limits of outer groups hold too. Within a container `path` may not exist: there the group is the root.
        for place in [folder, *folder.parents]:
            if place.is_relative_to(root):
                with contextlib.suppress(OSError, ValueError):  # no such file; the limit is "max"
                    headroom.append(_headroom(place, *names))
    return headroom


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has used; on a GPU, since torch.cuda.reset_peak_memory_stats."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if sys.platform == "linux":  # ru_maxrss would include what the parent process used before the fork
        return _proc_figure("/proc/self/status", "VmHWM")
    import resource  # missing on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _headroom(folder: Path, limit: str, usage: str, reclaimable: str) -> int:
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    most, used = (int((folder / name).read_text()) for name in (limit, usage))
    return max(0, most - used + int(stat.get(reclaimable, 0)))


def _system_memory() -> int | None:
    if sys.platform == "linux":
        return _proc_figure("/proc/meminfo", "MemAvailable")
    with contextlib.suppress(AttributeError, ValueError, OSError):  # missing on Windows
        # macOS says how much memory is installed, not how much is free; assume half
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _proc_figure(file: str, key: str) -> int:
    """The figure after `key:` in a file of /proc, in bytes (the file has kB)."""
    lines = Path(file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024
