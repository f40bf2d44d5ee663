"""How much memory can still be had, and the most that this process has held. All figures are bytes."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import torch

# of a control group: what it may hold, what it holds, and the line of memory.stat with the file cache that can go
CGROUP_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
CGROUP_V2 = ("memory.max", "memory.current", "inactive_file")


def available_memory(device: torch.device) -> int | None:
    """Bytes free on a GPU; for the CPU those of the system, or fewer in a container. None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    system = _system_memory() if device.type == "cpu" else None
    return None if system is None else min([system, *cgroup_rooms()])


def cgroup_rooms(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that each control group around this process still allows, where it has a limit (as containers have)."""
    rooms = []
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):  # "" is version 2
            continue
        root, names = (mount / "memory", CGROUP_V1) if controllers else (mount, CGROUP_V2)
        folder = root / path.lstrip("/")
        # The limits of outer groups hold too. In a container, `path` may not be there: its own group is the root.
        for place in [folder, *folder.parents]:
            if place.is_relative_to(root):
                with contextlib.suppress(OSError, ValueError):  # no such file; "max", which is no limit
                    rooms.append(_cgroup_room(place, *names))
    return rooms


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held; on a GPU, since torch.cuda.reset_peak_memory_stats."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if sys.platform == "linux":  # where ru_maxrss begins with what the parent process held
        return _kilobytes("/proc/self/status", "VmHWM")
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _cgroup_room(folder: Path, limit: str, held: str, reclaimable: str) -> int:
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    figures = [int((folder / name).read_text()) for name in (limit, held)]
    return max(0, figures[0] - figures[1] + int(stat.get(reclaimable, 0)))


def _system_memory() -> int | None:
    if sys.platform == "linux":
        return _kilobytes("/proc/meminfo", "MemAvailable")
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        # macOS tells what is built in, not what is free: taken to be half
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _kilobytes(file: str, key: str) -> int:
    """The figure after `key:` in a file of /proc, which gives it in kB, as bytes."""
    lines = Path(file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024
