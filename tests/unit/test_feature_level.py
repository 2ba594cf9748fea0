"""A coordinator minds the cluster's feature level: at its start, while it runs, when another joins, and at the end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cloudless.coordinator.api.joining import Admission, Joiner
from cloudless.coordinator.api.upgrade import UpgradeCalls
from cloudless.coordinator.feature_level import require_fit, watch_level
from cloudless.core import keys
from cloudless.core.model import ClusterRecord, CoordinatorRecord
from cloudless.errors import Conflict, VersionRefused
from cloudless.ports import Delete, Put, Txn
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1.common_pb2 import WriteOptions
from cloudless.testing.faulty_store import REQUEST_LOST, Fault, always, script
from cloudless.testing.virtual_time import eventually, virtually
from tests.unit.leading import Cluster, leading
from tests.unit.test_access import build_access

SLOW = Fault(request_delay_s=0.05)


def ignore(_: str) -> None:
    """What is waited for does not matter here."""


async def set_level(cluster: Cluster, level: str) -> None:
    revision = await cluster.put(keys.CLUSTER, ClusterRecord(id="kl", feature_level=level))
    await cluster.replica.wait_for(revision, timeout_s=5)


# --- starting and running ---


@virtually
async def test_a_version_that_does_not_fit_is_refused_before_it_takes_part() -> None:
    cluster = Cluster()
    await require_fit(cluster.store, "1.7.0", ignore)  # not named yet
    await cluster.put(keys.CLUSTER, ClusterRecord(id="kl", feature_level="1.4"))
    for fits in ("1.4.0", "1.5.9"):
        await require_fit(cluster.store, fits, ignore)
    for misfit in ("1.3.0", "1.6.0"):
        with pytest.raises(VersionRefused) as refused:
            await require_fit(cluster.store, misfit, ignore)
        assert "start 1.4 or 1.5" in refused.value.hint


@virtually
async def test_a_store_that_does_not_answer_is_waited_for() -> None:
    cluster = Cluster()
    said: list[str] = []
    await cluster.put(keys.CLUSTER, ClusterRecord(id="kl", feature_level="1.4"))
    cluster.store.choose = always(REQUEST_LOST, ("read_page",))
    asking = asyncio.create_task(require_fit(cluster.store, "1.9.0", said.append))
    await eventually(lambda: len(said) > 2, within_s=60)
    cluster.store.choose = script()
    with pytest.raises(VersionRefused):
        await asking


@virtually
async def test_a_record_that_cannot_be_read_refuses_nobody() -> None:
    cluster = Cluster()
    await cluster.memory.txn(Txn(then=(Put(keys.CLUSTER, b"rubbish"),)), timeout_s=1)
    await require_fit(cluster.store, "9.9.9", ignore)


@virtually
async def test_a_coordinator_ends_when_the_level_is_raised_beyond_it() -> None:
    async with leading() as cluster:
        watching = asyncio.create_task(watch_level(cluster.replica, "1.4.2"))
        await asyncio.sleep(0)
        for fits in ("1.4", "1.3"):
            await set_level(cluster, fits)
            await asyncio.sleep(0)
            assert not watching.done()
        await set_level(cluster, "1.5")
        with pytest.raises(VersionRefused, match="older than the cluster"):
            await watching
        assert cluster.replica.listener_count == 0


# --- joining ---


@virtually
async def test_a_newcomer_that_does_not_fit_gets_no_place() -> None:
    async with leading() as cluster:
        await set_level(cluster, "1.4")
        members: Any = SimpleNamespace()  # not even looked at
        admission = Admission(build_access(cluster), members)
        for version in ("1.3.0", "1.6.0"):
            with pytest.raises(VersionRefused):
                await admission.admit(Joiner("c9", "h:3000", "h:8080", True, version=version), None)


# --- finishing ---


def calls(cluster: Cluster, *names: str) -> UpgradeCalls:
    async def refresh() -> None:
        return

    members: Any = SimpleNamespace(refresh=refresh, list=[SimpleNamespace(name=name, id=7) for name in names])
    return UpgradeCalls(build_access(cluster), members)


async def run_versions(cluster: Cluster, **versions: str) -> None:
    for name, version in versions.items():
        revision = await cluster.put(keys.coordinator(name), CoordinatorRecord(id=name, version=version))
        await cluster.replica.wait_for(revision, timeout_s=5)


def finish(request_id: str = "r1") -> pb.FinishUpgradeRequest:
    return pb.FinishUpgradeRequest(options=WriteOptions(request_id=request_id))


@virtually
async def test_an_upgrade_is_finished_once_all_members_run_it() -> None:
    async with leading() as cluster:
        await set_level(cluster, "1.4")
        await run_versions(cluster, c1="1.5.0", c2="1.4.2")
        asked = calls(cluster, "c1", "c2")
        with pytest.raises(Conflict, match=r"c2 still runs 1\.4\.2"):
            await asked.FinishUpgrade(finish("a"), None)
        await run_versions(cluster, c2="1.5.1")
        with pytest.raises(Conflict, match="c3 does not run"):
            await calls(cluster, "c1", "c2", "c3").FinishUpgrade(finish("b"), None)
        with pytest.raises(Conflict, match="member 7 does not run"):
            await calls(cluster, "c1", "").FinishUpgrade(finish("c"), None)
        done = await asked.FinishUpgrade(finish(), None)
        assert (done.feature_level_before, done.feature_level) == ("1.4", "1.5")
        again = await asked.FinishUpgrade(finish(), None)
        assert (again.feature_level_before, again.feature_level) == ("1.4", "1.5"), "the same request, the same answer"
        other = await asked.FinishUpgrade(finish("r2"), None)
        assert (other.feature_level_before, other.feature_level) == ("1.5", "1.5")
        held = cluster.replica.machine.cluster
        assert held == ClusterRecord(id="kl", feature_level="1.5")
        assert [event.kind for event in cluster.replica.machine.events.values()] == ["UpgradeFinished"]


@virtually
async def test_a_member_that_comes_back_older_at_that_moment_keeps_the_level_down() -> None:
    """Decided while it ran, committed when it did not: the store refuses, and it is decided anew."""
    async with leading() as cluster:
        await set_level(cluster, "1.4")
        await run_versions(cluster, c1="1.5.0", c2="1.5.0")
        asked = calls(cluster, "c1", "c2")
        cluster.store.choose = always(SLOW, ("txn",))
        finishing = asyncio.create_task(asked.FinishUpgrade(finish(), None))
        await eventually(lambda: any(keys.CLUSTER in str(txn) for txn in cluster.store.transactions), within_s=5)
        await cluster.memory.txn(Txn(then=(Delete(keys.coordinator("c2")),)), timeout_s=1)
        with pytest.raises(Conflict, match="c2 does not run"):
            await finishing
        held = cluster.replica.machine.cluster
        assert held is not None
        assert held.feature_level == "1.4"
