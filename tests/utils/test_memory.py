"""Available memory: in control groups, as containers have them (read from files), and on this machine."""

import os
import sys
from pathlib import Path

import pytest
import torch

from detector.utils.memory import CGROUP_V1, CGROUP_V2, available_memory, cgroup_headroom, peak_memory

UNLIMITED_V1 = 9223372036854771712


def group(folder: Path, names: tuple[str, str, str], limit: int | str, held: int, reclaimable: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{held}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {reclaimable}\n")


def rooms(tmp_path: Path, lines: str) -> list[int]:
    (tmp_path / "cgroup").write_text(lines)
    return cgroup_headroom(tmp_path / "cgroup", tmp_path / "mount")


def test_no_control_groups(tmp_path):
    assert cgroup_headroom(tmp_path / "nothing", tmp_path) == []
    assert rooms(tmp_path, "0::/\n") == []


def test_version_2_counts_the_file_cache_as_free(tmp_path):
    group(tmp_path / "mount", CGROUP_V2, 1000, held=700, reclaimable=200)
    assert rooms(tmp_path, "0::/\n") == [500]


def test_version_2_has_the_limits_of_outer_groups_too(tmp_path):
    group(tmp_path / "mount" / "a" / "b", CGROUP_V2, "max", held=100, reclaimable=0)
    group(tmp_path / "mount" / "a", CGROUP_V2, 600, held=300, reclaimable=50)
    assert rooms(tmp_path, "0::/a/b\n") == [350]
    group(tmp_path / "mount" / "a" / "b", CGROUP_V2, 150, held=100, reclaimable=0)
    assert rooms(tmp_path, "0::/a/b\n") == [50, 350]


def test_version_1(tmp_path):
    group(tmp_path / "mount" / "memory", CGROUP_V1, UNLIMITED_V1, held=10, reclaimable=0)
    group(tmp_path / "mount" / "memory" / "box", CGROUP_V1, 1000, held=1200, reclaimable=100)
    assert rooms(tmp_path, "9:cpu,cpuacct:/\n4:memory:/box\n0::/\n") == [0, UNLIMITED_V1 - 10]


def test_a_container_that_sees_its_group_as_the_root(tmp_path):
    group(tmp_path / "mount" / "memory", CGROUP_V1, 1000, held=400, reclaimable=0)
    assert rooms(tmp_path, "4:memory:/docker/0123abc\n") == [600]


def test_this_machine():
    cpu = torch.device("cpu")
    assert available_memory(torch.device("meta")) is None
    if sys.platform == "linux":
        assert 0 < available_memory(cpu) < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="a file of Linux")
def test_the_peak_is_that_of_this_process_alone():
    import resource

    status = Path("/proc/self/status").read_text()
    held = int(status.split("VmRSS:")[1].split()[0]) * 1024
    peak = peak_memory(torch.device("cpu"))
    assert peak > 0.99 * held  # the kernel updates it a little late
    assert peak < 1.01 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
