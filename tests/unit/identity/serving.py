"""A coordinator's IdentityService over a store in memory, with authorities founded, and callers with certificates."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from cloudless.adapters.pki.certificate import hash_key, read_peer
from cloudless.adapters.pki.request import build_request, new_key
from cloudless.adapters.pki.vault import Holdings, Vault, found
from cloudless.adapters.system import RandomIds
from cloudless.coordinator.api.access import Access
from cloudless.coordinator.api.caller import Presence, set_presence
from cloudless.coordinator.api.enrolment import Enrolment
from cloudless.coordinator.api.identity import IdentityAdmin
from cloudless.coordinator.audit import Auditor
from cloudless.coordinator.issuing import Issuer
from cloudless.coordinator.leases import RecordLeases, RollingLease
from cloudless.core import keys
from cloudless.core.identity.access import Caller
from cloudless.core.identity.names import find_identity
from cloudless.core.model import ClusterRecord, Role
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.testing.virtual_time import running
from tests.unit.leading import CLOCK, Cluster

CLUSTER_ID = "0123456789abcdef"
HOLDINGS = found(CLUSTER_ID, int(time.time() * 1000))


class RealDates:
    """Virtual time with today's date, which certificates are made for."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def monotonic_s(self) -> float:
        return CLOCK.monotonic_s()

    def wall_ms(self) -> int:
        return int(time.time() * 1000) + self.ahead_ms

    async def sleep(self, seconds: float) -> None:
        await CLOCK.sleep(seconds)


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run here what would run in a thread: threads know nothing of virtual time."""
    return function(*arguments)


class Service:
    """One coordinator's IdentityService."""

    def __init__(
        self, cluster: Cluster, folder: Path, holdings: Holdings | None = HOLDINGS, own_id: str = "c1"
    ) -> None:
        self.cluster, self.clock = cluster, RealDates()
        self.vault = Vault(folder / own_id)
        if holdings is not None:
            self.vault.keep(holdings)
        leases = RecordLeases(RollingLease(cluster.store, self.clock), RollingLease(cluster.store, self.clock))
        self.access = Access(own_id, cluster.replica, cluster.committer, leases, self.clock, RandomIds())
        self.issuer = Issuer(self.vault, cluster.replica.machine, self.clock, at_once)
        cluster.replica.listen(self.issuer.on_applied)
        self.auditor = Auditor(own_id, cluster.committer, leases.events, self.clock, RandomIds())
        self.enrolment = Enrolment(self.access, self.issuer, self.auditor)
        self.admin = IdentityAdmin(self.access, self.issuer)

    @property
    def view(self) -> Any:
        return self.cluster.replica.machine

    async def create_token(self, **fields: Any) -> pb.CreateTokenResponse:
        request = pb.CreateTokenRequest(**{"role": "ROLE_AGENT", **fields})
        return await self.admin.CreateToken(request, context())

    async def enrol(
        self, token: str, name: str = "a1", key: ec.EllipticCurvePrivateKey | None = None, **fields: Any
    ) -> pb.EnrolResponse:
        request = pb.EnrolRequest(token=token, name=name, csr_pem=build_request(key or new_key()), **fields)
        return await self.enrolment.Enrol(request, context())


def context(peer: str = "ipv4:10.0.0.9:4711", pem: str = "") -> Any:
    """Return what gRPC hands to a handler."""
    shown = {"x509_pem_cert": [pem.encode()]} if pem else {}
    return SimpleNamespace(peer=lambda: peer, auth_context=lambda: shown, time_remaining=lambda: None)


def be(issued: pb.Issued | None, role: Role = Role.AGENT) -> None:
    """Make the calls that follow those of the holder of a certificate, as the guard does."""
    if issued is None:
        return set_presence(None)
    peer = read_peer(issued.chain_pem.encode())
    identity = find_identity(issued.identity)
    assert identity == peer.identity
    set_presence(Presence(Caller(peer.identity.name, role), peer))


def hash_of(key: ec.EllipticCurvePrivateKey) -> str:
    return hash_key(key.public_key())


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Service]:
    """Run a service whose cluster has a name and authorities."""
    cluster = Cluster()
    be(None)
    async with running(cluster.replica.run(), cluster.committer.run()):
        await cluster.replica.loaded.wait()
        await cluster.put(keys.CLUSTER, ClusterRecord(id=CLUSTER_ID))
        for record in HOLDINGS.records:
            await cluster.put(keys.authority(record.id), record)
        service = Service(cluster, folder)
        async with running(service.issuer.run(), service.auditor.run()):
            await cluster.replica.linearize(timeout_s=5)
            yield service
