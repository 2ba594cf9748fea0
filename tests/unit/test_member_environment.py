"""What etcd is started with besides its flags."""

from __future__ import annotations

import pytest

from cloudless.adapters.host.machine import Machine
from cloudless.adapters.member.process import build_environment
from cloudless.coordinator.member_share import share_of_memory

MIB = 1 << 20


def machine(memory_mib: int, limit_mib: int = -1) -> Machine:
    limit = limit_mib * MIB if limit_mib > 0 else -1
    return Machine(memory_mib * MIB, -1, limit, swap_used_bytes=0, cpus=2, open_files_max=-1, clock_synchronised=None)


@pytest.mark.parametrize(
    ("memory_mib", "limit_mib", "wanted_mib"),
    [(24_000, -1, 1024), (2_048, -1, 512), (24_000, 1_024, 256), (512, -1, 160), (1_024, 4_096, 256)],
)
def test_etcd_gets_a_quarter_of_what_memory_there_is(memory_mib: int, limit_mib: int, wanted_mib: int) -> None:
    assert share_of_memory(machine(memory_mib, limit_mib)) == wanted_mib * MIB


def test_the_least_counts_where_nothing_is_known() -> None:
    assert share_of_memory(Machine(-1, -1, -1, -1, 1.0, -1, None)) == 160 * MIB


def test_etcd_is_told_its_share() -> None:
    assert build_environment(512 * MIB)["GOMEMLIMIT"] == "512MiB"
