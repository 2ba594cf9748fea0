"""What this machine has to give to tasks: processors, memory, disk, network and GPUs, as far as it can be told.

Of processors and memory, no more than this process's own control group lets it use: in a container the rest of the
machine is somebody else's.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cloudless.adapters.host.disk import measure_room
from cloudless.core.model import Resources

BANDWIDTH_MBPS = 1000
"""Assumed where no interface tells its speed, as in most virtual machines."""
UNLIMITED_BYTES = 1 << 60
"""Version 1 of control groups says "no limit" by a number beyond this."""
_MIB = 1024 * 1024


def detect_capacity(data_dir: Path, root: Path = Path("/")) -> Resources:
    """Return what the machine has; storage is what is free where `data_dir` is. /proc, /sys and /dev are in `root`."""
    groups = _own_groups(root)
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB
    limit = min(_numbers(groups, "memory.max", "memory.limit_in_bytes"), default=UNLIMITED_BYTES)
    storage_mb = 0
    with suppress(OSError):
        storage_mb = measure_room(data_dir).free_bytes // _MIB
    return Resources(
        cpu_millicores=min(1000 * len(os.sched_getaffinity(0)), _cpu_quota_millicores(groups)),
        memory_mb=min(memory_mb, limit // _MIB) if 0 < limit < UNLIMITED_BYTES else memory_mb,
        storage_mb=storage_mb,
        bandwidth_mbps=_fastest_interface_mbps(root),
        gpus=_count_gpus(root),
    )


def detect_labels() -> Mapping[str, str]:
    """Return labels that every node has, for selectors."""
    return {"cloudless.io/arch": platform.machine(), "cloudless.io/os": platform.system().lower()}


def _count_gpus(root: Path) -> int:
    """Return the GPUs whose driver is loaded: NVIDIA's by their devices, AMD's by the compute nodes that have one."""
    nvidia = sum(path.name.removeprefix("nvidia").isdigit() for path in (root / "dev").glob("nvidia*"))
    amd = 0
    for path in (root / "sys/class/kfd/kfd/topology/nodes").glob("*/gpu_id"):
        with suppress(OSError, ValueError):
            amd += int(path.read_text(encoding="ascii")) != 0
    return nvidia + amd


def _fastest_interface_mbps(root: Path) -> int:
    speeds = [0]
    for path in (root / "sys/class/net").glob("*/speed"):
        with suppress(OSError, ValueError):  # one that is down, or virtual, has none
            speeds.append(int(path.read_text(encoding="ascii")))
    return max(speeds) or BANDWIDTH_MBPS


def _own_groups(root: Path) -> list[Path]:
    """Return the directories of this process's control groups and of all above them, in every hierarchy."""
    found: list[Path] = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, own = line.split(":", 2)
            base = root / "sys/fs/cgroup"
            for mount in (base, base / controllers.removeprefix("name="), base / "unified"):
                path = mount / own.strip("/")
                found += [path, *(above for above in path.parents if above.is_relative_to(mount))]
    return sorted(set(found))


def _numbers(groups: list[Path], *files: str) -> list[int]:
    found = []
    for path in (group / file for group in groups for file in files):
        with suppress(OSError, ValueError):  # not there, or "max"
            found.append(int(path.read_text(encoding="ascii")))
    return found


def _cpu_quota_millicores(groups: list[Path]) -> int:
    """Return the tightest limit of processor time, as many processors as can be if there is none."""
    found = [1_000_000]
    for group in groups:
        with suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
            found.append(1000 * int(quota) // int(period))
        with suppress(OSError, ValueError):
            quota_us = int((group / "cpu.cfs_quota_us").read_text(encoding="ascii"))
            if quota_us > 0:
                found.append(1000 * quota_us // int((group / "cpu.cfs_period_us").read_text(encoding="ascii")))
    return min(found)
