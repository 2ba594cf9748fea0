"""A request ends within its caller's time, whatever it has to wait for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cloudless.coordinator.api.access import Access, Decided
from cloudless.coordinator.leases import RecordLeases, RollingLease
from cloudless.errors import Unavailable
from cloudless.rpc.v1 import common_pb2
from cloudless.testing.faulty_store import REQUEST_LOST, always
from cloudless.testing.virtual_time import virtually
from tests.unit.leading import CLOCK, Cluster, leading


def build_access(cluster: Cluster) -> Access:
    leases = RecordLeases(RollingLease(cluster.store, CLOCK), RollingLease(cluster.store, CLOCK))
    return Access("c1", cluster.replica, cluster.committer, leases, CLOCK, SimpleNamespace(new=lambda: "id"))


@virtually
async def test_a_write_that_waits_for_a_lease_ends_with_an_error_before_its_caller_gives_up() -> None:
    async with leading() as cluster:
        cluster.store.choose = always(REQUEST_LOST, ("grant",))
        access = build_access(cluster)
        began_s = CLOCK.monotonic_s()
        context = SimpleNamespace(time_remaining=lambda: began_s + 1.0 - CLOCK.monotonic_s())
        with pytest.raises(Unavailable):
            await access.write(common_pb2.WriteOptions(), b"", lambda view: Decided(None, {}), context)
        assert CLOCK.monotonic_s() - began_s < 1.0
