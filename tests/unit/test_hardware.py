"""What a machine has is read from its own account of itself, and what its operator says counts instead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudless.adapters.host.hardware import BANDWIDTH_MBPS, detect_capacity, detect_labels
from cloudless.agent.config import build_node_info
from cloudless.errors import BadSettings
from cloudless.settings import read_agent_settings

NAMED = {"CLOUDLESS_NODE_ID": "n1", "CLOUDLESS_COORDINATOR_ADDR": "c1"}
CORES = len(os.sched_getaffinity(0))


def write_at(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_machine_that_tells_nothing_has_its_processors_and_memory(tmp_path: Path) -> None:
    found = detect_capacity(tmp_path, tmp_path)
    assert found.cpu_millicores == 1000 * CORES
    assert found.memory_mb > 100
    assert found.storage_mb > 0
    assert (found.bandwidth_mbps, found.gpus) == (BANDWIDTH_MBPS, 0)
    assert detect_capacity(tmp_path / "not" / "there" / "yet", tmp_path).storage_mb > 0


def test_gpus_and_the_fastest_interface_are_found(tmp_path: Path) -> None:
    for path in ("dev/nvidia0", "dev/nvidia1", "dev/nvidiactl", "dev/nvidia-uvm"):
        write_at(tmp_path, path, "")
    for node, gpu in enumerate(("0\n", "4711\n")):
        write_at(tmp_path, f"sys/class/kfd/kfd/topology/nodes/{node}/gpu_id", gpu)
    for name, speed in {"eth0": "10000\n", "eth1": "1000\n", "down": "-1\n", "lo": ""}.items():
        write_at(tmp_path, f"sys/class/net/{name}/speed", speed)
    found = detect_capacity(tmp_path, tmp_path)
    assert (found.gpus, found.bandwidth_mbps) == (3, 10_000)


@pytest.mark.parametrize("version", [1, 2])
def test_in_a_container_there_is_no_more_than_the_container_may_use(tmp_path: Path, version: int) -> None:
    if version == 1:
        write_at(tmp_path, "proc/self/cgroup", "4:memory:/job\n2:cpu,cpuacct:/job\n")
        write_at(tmp_path, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{64 * 1024**2}\n")
        write_at(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
        write_at(tmp_path, "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "50000\n")
        write_at(tmp_path, "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
    else:
        write_at(tmp_path, "proc/self/cgroup", "0::/a/job\n")
        write_at(tmp_path, "sys/fs/cgroup/a/memory.max", f"{64 * 1024**2}\n")
        write_at(tmp_path, "sys/fs/cgroup/a/job/memory.max", "max\n")
        write_at(tmp_path, "sys/fs/cgroup/a/job/cpu.max", "50000 100000\n")
    found = detect_capacity(tmp_path, tmp_path)
    assert (found.cpu_millicores, found.memory_mb) == (500, 64)


def test_what_the_operator_says_counts_and_the_rest_is_detected() -> None:
    given = {"CLOUDLESS_CPU_CORES": "0.5", "CLOUDLESS_GPUS": "2", "CLOUDLESS_STORAGE_GB": "0"}
    info = build_node_info(
        read_agent_settings({**NAMED, **given}), ("process",), "a", {"limit-cpu": "", "mounts": "no"}
    )
    assert (info.capacity.cpu_millicores, info.capacity.gpus, info.capacity.storage_mb) == (500, 2, 0)
    assert info.capacity.memory_mb > 100
    assert (info.capabilities, info.unable) == (("limit-cpu",), {"mounts": "no"})


def test_labels_and_capabilities_of_the_operators_own_come_beside_what_is_found() -> None:
    given = {"CLOUDLESS_LABELS": "disk=ssd, cloudless.io/arch=other", "CLOUDLESS_CAPABILITIES": "sgx,camera"}
    info = build_node_info(read_agent_settings({**NAMED, **given}), ("process",), "a", {"limit-cpu": ""})
    assert info.labels == {**detect_labels(), "disk": "ssd", "cloudless.io/arch": "other"}
    assert info.capabilities == ("limit-cpu", "camera", "sgx")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LABELS", "ssd", "must be KEY=VALUE"),
        ("CAPABILITIES", "limit-memory", "that the agent finds out itself"),
        ("CAPABILITIES", "Über", "must be names"),
        ("GPUS", "-1", "must be a whole number from 0"),
    ],
)
def test_a_wrong_fact_is_refused(name: str, value: str, words: str) -> None:
    with pytest.raises(BadSettings, match=words):
        read_agent_settings({**NAMED, f"CLOUDLESS_{name}": value})
