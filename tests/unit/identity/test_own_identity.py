"""A coordinator's own certificates: signed before there is state, on record once there is, and in step with the CAs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.etcd_files import EtcdFiles
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.coordinator.own_identity import OwnIdentity
from cloudless.core import keys
from cloudless.core.identity.renewal import Freshness
from cloudless.core.model import Role
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.testing.builders import TestCluster
from cloudless.testing.virtual_time import eventually, running, virtually
from tests.unit.identity.serving import HOLDINGS, RealDates, context, serving
from tests.unit.identity.trust import put_identity

DAY_MS = 86_400_000


@dataclass
class Owner:
    """A coordinator's identity, and what it told of."""

    folder: Path
    clock: RealDates = field(default_factory=RealDates)
    hosts: list[str] = field(default_factory=lambda: ["10.0.0.1"])
    changes: list[Credentials] = field(default_factory=list)
    restarts: int = 0

    def __post_init__(self) -> None:
        self.files = EtcdFiles(self.folder / "etcd")
        self.own = OwnIdentity(
            "c1", IdentityDir(self.folder / "id"), self.files, lambda: self.hosts, self.clock,
            on_change=self.changes.append, on_etcd_roots=self._restart,
        )  # fmt: skip

    def _restart(self) -> None:
        self.restarts += 1


def test_it_signs_before_there_is_state_and_again_only_when_something_is_due(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    first = owner.own.sign(HOLDINGS)
    assert owner.own.credentials == first
    assert not owner.changes
    peer = owner.files.peer.read_bytes()
    owner.own.sign(HOLDINGS)
    assert owner.files.peer.read_bytes() == peer
    owner.hosts.append("10.0.0.2")
    owner.own.sign(HOLDINGS)
    assert owner.files.peer.read_bytes() != peer
    owner.clock.ahead_ms = DAY_MS // 2
    owner.own.sign(HOLDINGS)
    (renewed,) = owner.changes
    assert renewed.key_hash == first.key_hash
    assert renewed.freshness(owner.clock.wall_ms()) is Freshness.FRESH
    assert owner.restarts == 0


@virtually
async def test_it_renews_while_it_waits_to_become_a_member(tmp_path: Path) -> None:
    """A learner that stands by may do so for weeks: with certificates of a day nobody would reach it any more."""
    owner = Owner(tmp_path)
    owner.own.sign(HOLDINGS)
    peer = owner.files.peer.read_bytes()
    async with running(owner.own.keep(HOLDINGS)):
        await owner.clock.sleep(20)
        assert not owner.changes
        owner.clock.ahead_ms = 3 * DAY_MS
        await eventually(lambda: bool(owner.changes), within_s=10)
    assert owner.own.credentials.freshness(owner.clock.wall_ms()) is Freshness.FRESH
    assert owner.files.peer.read_bytes() != peer


@virtually
async def test_its_key_goes_on_record_and_it_follows_a_replaced_ca(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        owner = Owner(tmp_path)
        owner.own.sign(HOLDINGS)
        service.cluster.replica.listen(owner.own.on_applied)
        run = owner.own.run(service.issuer.get_holdings, service.view, service.cluster.committer)
        async with running(run):
            await eventually(lambda: ("coordinator", "c1") in service.view.identities)
            held = service.view.identities["coordinator", "c1"].record
            assert (held.role, held.key_hashes) == (Role.COORDINATOR, (owner.own.credentials.key_hash,))
            await service.admin.RotateCa(pb.RotateCaRequest(), context())
            await eventually(lambda: len(owner.changes) == 1)
            assert owner.changes[-1].roots_pem.count(b"BEGIN CERTIFICATE") == 2
            assert owner.restarts == 1
            for _ in range(2):
                await service.admin.RotateCa(pb.RotateCaRequest(hurry=True), context())
            await eventually(lambda: owner.own.credentials.roots_pem.count(b"BEGIN CERTIFICATE") == 1)
            assert (
                service.view.authorities["cluster-2"].record.certificate_pem.encode() in owner.own.credentials.chain_pem
            )
            assert owner.own.credentials.key_hash == held.key_hashes[0]


@virtually
async def test_a_coordinator_that_was_revoked_does_not_put_itself_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        record = put_identity(TestCluster(), "c1", Role.COORDINATOR, revoked_at_ms=1)
        await service.cluster.put(keys.identity("coordinator", "c1"), record)
        await service.cluster.replica.linearize(timeout_s=5)
        owner = Owner(tmp_path)
        revision = service.view.revision
        run = owner.own.run(service.issuer.get_holdings, service.view, service.cluster.committer)
        async with running(run):
            await service.clock.sleep(20)
        assert service.view.revision == revision
