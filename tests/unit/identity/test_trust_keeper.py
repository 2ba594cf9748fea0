"""The leader founds the authorities once, takes each step of a replacement in its time, and tells of it.

Refusals are told once a minute.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cloudless.adapters.pki.vault import Vault
from cloudless.adapters.system import RandomIds
from cloudless.coordinator import audit
from cloudless.coordinator.audit import Auditor
from cloudless.coordinator.issuing import Issuer
from cloudless.coordinator.leases import RollingLease
from cloudless.coordinator.trust_keeper import TrustKeeper
from cloudless.core import keys
from cloudless.core.identity.plans import TOKEN_KEPT_MS
from cloudless.core.model import ClusterRecord, IdentityRecord, Role
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.testing.faulty_store import NONE, REQUEST_LOST, always
from cloudless.testing.virtual_time import eventually, running, virtually
from tests.unit.identity.serving import CLUSTER_ID, RealDates, Service, at_once, context, serving
from tests.unit.identity.trust import build_token
from tests.unit.leading import CLOCK, Cluster, leading

DAY_MS = 86_400_000


def build_keeper(cluster: Cluster, issuer: Issuer, clock: RealDates) -> TrustKeeper:
    lease = RollingLease(cluster.store, clock)
    return TrustKeeper("c1", cluster.replica, issuer, lease, clock, RandomIds(), frozenset)


@asynccontextmanager
async def keeping(service: Service) -> AsyncIterator[None]:
    keeper = build_keeper(service.cluster, service.issuer, service.clock)
    async with running(keeper.run(1, service.cluster.committer)):
        yield


def phases(service: Service) -> dict[str, str]:
    return {name: held.record.phase.name.lower() for name, held in sorted(service.view.authorities.items())}


@virtually
async def test_authorities_are_founded_once_the_cluster_has_a_name_and_are_on_disk_first(tmp_path: Path) -> None:
    async with leading() as cluster:
        clock = RealDates()
        vault = Vault(tmp_path / "v")
        issuer = Issuer(vault, cluster.replica.machine, clock, at_once)
        async with running(build_keeper(cluster, issuer, clock).run(1, cluster.committer)):
            await CLOCK.sleep(5)
            assert vault.load() is None
            await cluster.put(keys.CLUSTER, ClusterRecord(id=CLUSTER_ID))
            await eventually(lambda: len(cluster.replica.machine.authorities) == 3)
        kept = vault.load()
        assert kept is not None
        assert kept.cluster_id == CLUSTER_ID
        assert kept.records == issuer.records()
        assert issuer.get_authority().record.id == "cluster-1"
        assert [event.kind for event in cluster.replica.machine.events.values()] == ["TrustChanged"]


@virtually
async def test_the_keys_of_another_cluster_found_nothing(tmp_path: Path) -> None:
    async with leading() as cluster:
        clock = RealDates()
        issuer = Issuer(Vault(tmp_path / "v"), cluster.replica.machine, clock, at_once)
        await issuer.found("another")
        async with running(build_keeper(cluster, issuer, clock).run(1, cluster.committer)):
            await cluster.put(keys.CLUSTER, ClusterRecord(id=CLUSTER_ID))
            await CLOCK.sleep(10)
        assert not cluster.replica.machine.authorities


@virtually
async def test_a_replacement_goes_on_by_itself(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, keeping(service):
        await service.admin.RotateCa(pb.RotateCaRequest(), context())
        await CLOCK.sleep(10)
        assert phases(service)["cluster-2"] == "distributing"
        service.clock.ahead_ms += DAY_MS + 600_000
        await eventually(lambda: phases(service).get("cluster-2") == "issuing")
        assert phases(service)["cluster-1"] == "retiring"
        service.clock.ahead_ms += DAY_MS + 600_000
        await eventually(lambda: set(phases(service)) == {"cluster-2", "etcd-clients-2", "etcd-peers-2"})
        await eventually(lambda: service.vault.load().records == service.issuer.records())  # type: ignore[union-attr]


@virtually
async def test_a_ca_in_its_last_year_is_replaced_unasked(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, keeping(service):
        await CLOCK.sleep(5)
        assert len(phases(service)) == 3
        service.clock.ahead_ms = 3300 * DAY_MS
        await eventually(lambda: len(phases(service)) == 6)


@virtually
async def test_tokens_of_who_was_revoked_are_revoked_for_good(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, keeping(service):
        for name, made_by in (("theirs", "coordinator/c9"), ("anns", "person/ann")):
            token = build_token(name, created_by=made_by, expires_at_ms=service.clock.wall_ms() + 3_600_000)
            await service.cluster.put(keys.token(name), token)
        revoked = IdentityRecord(name="c9", role=Role.COORDINATOR, revoked_at_ms=service.clock.wall_ms())
        await service.cluster.put(keys.identity("coordinator", "c9"), revoked)
        await service.cluster.replica.linearize(timeout_s=5)
        await eventually(lambda: service.view.tokens["theirs"].record.revoked_at_ms > 0)
        assert service.view.tokens["anns"].record.revoked_at_ms == 0


@virtually
async def test_old_tokens_are_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, keeping(service):
        now_ms = service.clock.wall_ms()
        for name, expires_ms in (("old", now_ms - TOKEN_KEPT_MS - 60_000), ("recent", now_ms - 60_000)):
            await service.cluster.put(keys.token(name), build_token(name, expires_at_ms=expires_ms))
        await eventually(lambda: set(service.view.tokens) == {"recent"})


# --- refusals -----------------------------------------------------------------------------------


def build_auditor(cluster: Cluster) -> Auditor:
    return Auditor("c1", cluster.committer, RollingLease(cluster.store, CLOCK), CLOCK, RandomIds())


@virtually
async def test_the_same_refusal_is_told_once_a_minute() -> None:
    async with leading() as cluster:
        auditor = build_auditor(cluster)
        async with running(auditor.run()):
            for _ in range(100):
                auditor.refused("agent/a1", "agent/a1", "ClusterService/GetStatus", "not for agents")
            await eventually(lambda: len(cluster.replica.machine.events) == 1)
            (event,) = cluster.replica.machine.events.values()
            assert (event.kind, event.subject, event.actor) == ("AccessRefused", "agent/a1", "agent/a1")
            assert "not for agents" in event.message
            await CLOCK.sleep(audit.TOLD_AGAIN_AFTER_S + 1)
            auditor.refused("agent/a1", "agent/a1", "ClusterService/GetStatus", "not for agents")
            await eventually(lambda: len(cluster.replica.machine.events) == 2)
        assert auditor.refusals_total == 101


@virtually
async def test_a_store_that_does_not_answer_neither_stops_nor_fills_the_auditor() -> None:
    async with leading() as cluster:
        auditor = build_auditor(cluster)
        async with running(auditor.run()):
            cluster.store.choose = always(REQUEST_LOST)
            for number in range(1000):
                auditor.refused(f"agent/a{number}", "", "X", "no")
            await CLOCK.sleep(60)
            cluster.store.choose = always(NONE)
            auditor.refused("agent/last", "", "X", "no")
            assert auditor.untold_total >= 1000 - audit.QUEUE_LENGTH_MAX
            assert len(auditor._told_s) <= audit.TOLD_MAX
