"""The recorded load on a real cluster: sound under faults, and a lie told to the store by hand is found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloudless.cli.methods import LIST_WORKLOADS
from cloudless.core import keys
from cloudless.core.model import WorkloadRecord
from cloudless.ports import Put
from cloudless.rpc import codec
from cloudless.rpc.codec import encode_record
from cloudless.rpc.v1.workload_pb2 import ListWorkloadsRequest
from cloudless.testing.history import Fault
from cloudless.testing.load import NotReached, blocking_load, recorded_load
from cloudless.testing.load.objects import VALUE
from etcd.find import Found
from tests.integration.cluster import COORDINATORS, LocalCluster
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FIRST = COORDINATORS[0]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("load"), binary.path)
    made.add_coordinators()
    made.found_together()
    made.start(*made.processes)
    try:
        made.wait_formed()
        yield made
    finally:
        made.close()


def etcds(cluster: LocalCluster) -> list[str]:
    return [process.address("etcd") for process in cluster.coordinators]


def test_a_cluster_whose_leader_is_killed_under_load_gives_a_sound_history(cluster: LocalCluster) -> None:
    with blocking_load(cluster.api_addresses(), etcds(cluster), clients=8) as load:
        before = load.require(acks_min=50, reads_min=50)
        leader = cluster.leader()
        cluster.kill(leader, etcd=True)
        load.require(acks_min=50, reads_min=50, since=before)
        cluster.start(leader)
        cluster.wait_formed()
        before = load.counts
        load.require(acks_min=20, reads_min=20, since=before)
        report = load.check()
    print(report)
    report.require_sound()
    for name in COORDINATORS:
        assert cluster.metric(name, "asyncio_tasks") > 0
        assert cluster.metric(name, "state_listeners") > 0


def test_a_value_put_back_by_hand_is_found(cluster: LocalCluster) -> None:
    with blocking_load(cluster.api_addresses(), etcds(cluster), clients=4, objects=1) as load:
        load.require(acks_min=20)
        old = cluster.until(lambda: the_object(cluster), "the object")
        load.require(acks_min=20, since=load.counts)
        cluster.write_raw(FIRST, Put(keys.workload("load", old.name), encode_record(old)))
        report = load.check()
    assert {violation.fault for violation in report.violations} == {Fault.RESURRECTED}
    with pytest.raises(AssertionError, match=f"{old.annotations[VALUE]}.* came back at revision"):
        report.require_sound()


def the_object(cluster: LocalCluster) -> WorkloadRecord | None:
    """Return the load's only object, if it is there."""
    for workload in cluster.call(LIST_WORKLOADS, ListWorkloadsRequest(namespace="load")).workloads:
        if not workload.record.deleted_at_ms:
            return codec.from_message(workload.record, WorkloadRecord)
    return None


async def test_a_load_that_is_not_reached_fails(cluster: LocalCluster) -> None:
    async with recorded_load(cluster.api_addresses(), etcds(cluster), clients=1) as load:
        with pytest.raises(NotReached, match="wanted 100000 writes"):
            await load.require(acks_min=100_000, timeout_s=0.2)
        assert (await load.check()).sound
