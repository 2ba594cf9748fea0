"""Certificates in the simulated world: what everybody proves itself by, put together as production does.

Real keys, real signatures, production's issuer, keeper of the own identity, guard, enrolment, renewal and rotation;
lifetimes of seconds instead of a day. Disks are simulated, and so is the way to IdentityService (`Ask`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec

from cloudless.adapters.pki.certificate import read_certificates, to_pem
from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.etcd_files import EtcdFiles, Written
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import FindAddresses, IdentityKeeper, Take, enrol_patiently
from cloudless.adapters.pki.pinning import find_pinned
from cloudless.adapters.pki.request import new_key
from cloudless.adapters.pki.sealing import ClusterKey
from cloudless.adapters.pki.vault import Holdings, Vault
from cloudless.coordinator.api.enrolment import Enrolment
from cloudless.coordinator.api.identity import IdentityAdmin
from cloudless.coordinator.audit import Auditor
from cloudless.coordinator.guard import Guard
from cloudless.coordinator.issuing import Issuer
from cloudless.coordinator.own_identity import OwnIdentity
from cloudless.coordinator.trust_keeper import TrustKeeper
from cloudless.core.identity.names import Identity
from cloudless.core.identity.renewal import Freshness
from cloudless.core.model import AuthorityRecord, Role
from cloudless.core.state import View
from cloudless.errors import CloudlessError, WrongAuthority
from cloudless.ports import Clock
from cloudless.rpc import codec
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.testing.sim.happenings import Renewed, Tell

if TYPE_CHECKING:
    from cloudless.testing.sim.coordinator import CoordinatorLife

NEVER_MS = 1 << 62
LOOK_PERIOD_S = 0.5


FindSeeds = Callable[[], Sequence[str]]
"""Returns where coordinators are."""


@dataclass(slots=True)
class PaperDisk:
    """What a host keeps of its identity. `token` is the join token it was given, `useless` if that leads nowhere."""

    token: str = ""
    useless: bool = False
    held: Credentials | None = None
    next_key: ec.EllipticCurvePrivateKey | None = None
    holdings: Holdings | None = None


class MemoryIdentityDir(IdentityDir):
    """An identity directory on a simulated disk."""

    def __init__(self, disk: PaperDisk) -> None:
        super().__init__(Path("/nowhere"))
        self._disk = disk

    def load(self) -> Credentials | None:
        return self._disk.held

    def prepare_key(self) -> ec.EllipticCurvePrivateKey:
        if self._disk.next_key is None:
            self._disk.next_key = new_key()
        return self._disk.next_key

    def store(self, credentials: Credentials) -> None:
        self._disk.held, self._disk.next_key = credentials, None

    def forget(self) -> None:
        self._disk.held = self._disk.next_key = None


class MemoryVault(Vault):
    """A vault on a simulated disk."""

    def __init__(self, disk: PaperDisk) -> None:
        super().__init__(Path("/nowhere"))
        self._disk = disk

    def load(self) -> Holdings | None:
        return self._disk.holdings

    def keep(self, holdings: Holdings) -> None:
        self._disk.holdings = holdings


class _NoEtcdFiles(EtcdFiles):
    """etcd's own connections are not simulated one by one, so nothing is signed for them."""

    def write(self, *_: Any) -> Written:
        return Written(NEVER_MS, False)


async def enrol_until_let_in(
    directory: IdentityDir, disk: PaperDisk, name: str, role: Role, find_addresses: FindAddresses, asking: Asking,
    clock: Clock, take: Take = lambda handover, identity: None,
) -> Credentials:  # fmt: skip
    """Enrol; where the token is of a CA that was replaced meanwhile, wait until an operator brings another."""
    while True:
        token = disk.token
        try:
            return await enrol_patiently(
                directory, token, name, role, find_addresses, asking, clock, take, asking.fetch_root
            )
        except WrongAuthority:
            disk.useless = True
            while disk.token == token:
                await clock.sleep(LOOK_PERIOD_S)


async def _at_once(work: Callable[..., Any], *args: Any) -> Any:
    await asyncio.sleep(0)
    return work(*args)


class Asking:
    """How one host calls IdentityService (`joining.Ask`), and sees the chain of a coordinator it does not trust."""

    def __init__(self, call: Callable[..., Any], find_chain: Callable[[str], Any]) -> None:
        self._call, self._find_chain = call, find_chain

    async def __call__(
        self, address: str, method: str, request: Any, answer: type[Any], roots_pem: bytes, own: Credentials | None
    ) -> Any:
        return await self._call(address, method, request, roots_pem, own)

    async def fetch_root(self, address: str, pin: str) -> str:
        """Return the CA with `pin` from the chain that is shown. Raises WrongAuthority, Unavailable."""
        root = find_pinned(read_certificates(await self._find_chain(address)), pin)
        if root is None:
            raise WrongAuthority(f"{address} is not of the cluster the token is for")
        return to_pem([root])


class CoordinatorPapers:
    """One coordinator's part in trust, as `coordinator.trust` and `coordinator.credentials` put it together."""

    def __init__(
        self, life: CoordinatorLife, disk: PaperDisk, asking: Asking, find_seeds: FindSeeds, tell: Tell
    ) -> None:
        self._life, self._disk, self._asking, self._tell = life, disk, asking, tell
        self._find_seeds = find_seeds
        self.ready = False

    async def obtain(self) -> None:
        """Come by what to sign with, by a token if need be, and put the parts together."""
        life, vault = self._life, MemoryVault(self._disk)
        directory = MemoryIdentityDir(self._disk)

        def take(handover: pb.Handover, identity: Identity) -> None:
            records = tuple(codec.from_message(one, AuthorityRecord) for one in handover.authorities)
            vault.keep(Holdings(identity.cluster_id, ClusterKey(bytes(handover.cluster_key)), records))

        async def find_addresses() -> Sequence[str]:
            return self._find_seeds()

        if vault.load() is None:
            await enrol_until_let_in(
                directory, self._disk, life.id, Role.COORDINATOR, find_addresses, self._asking, life.clock, take
            )
        self.issuer = Issuer(vault, life.replica.machine, life.clock, _at_once)
        self.auditor = Auditor(life.id, life.committer, life.leases.events, life.clock, life.ids)
        self.own = OwnIdentity(
            life.id, directory, _NoEtcdFiles(Path("/nowhere")), lambda: [], life.clock, on_change=self._on_change
        )
        self._before = self.own.sign(self.issuer.get_holdings())
        self.guard = Guard(self._find_view, lambda: self.issuer.cluster_id, tell=self.auditor.refused)
        self.services = (
            Enrolment(life.access, self.issuer, self.auditor),
            IdentityAdmin(life.access, self.issuer),
        )
        life.replica.listen(self.issuer.on_applied)
        life.replica.listen(self.own.on_applied)
        self.ready = True

    @property
    def credentials(self) -> Credentials:
        return self.own.credentials

    def _find_view(self) -> View | None:
        return self._life.replica.machine if self._life.replica.loaded.is_set() else None

    def _on_change(self, made: Credentials) -> None:
        self._tell(Renewed(self._life.id, self._before, made, self._life.clock.wall_ms()))
        self._before = made

    def controller(self) -> TrustKeeper:
        life = self._life
        machine = life.replica.machine
        return TrustKeeper(
            life.id, life.replica, self.issuer, life.leases.events, life.clock, life.ids,
            lambda: frozenset(machine.coordinators),
        )  # fmt: skip

    async def keep(self) -> None:
        """Renew while there is no state, as `runtime` does."""
        await self.own.keep(self.issuer.get_holdings())

    async def run(self) -> None:
        life = self._life
        async with asyncio.TaskGroup() as group:
            group.create_task(self.issuer.run(), name="issuer")
            group.create_task(self.auditor.run(), name="auditor")
            group.create_task(
                self.own.run(self.issuer.get_holdings, life.replica.machine, life.committer), name="own-identity"
            )


class AgentPapers:
    """One agent's credentials, as `agent.credentials` keeps them."""

    def __init__(
        self, node_id: str, disk: PaperDisk, asking: Asking, find_seeds: FindSeeds, clock: Clock, tell: Tell
    ) -> None:
        self._node_id, self._disk, self._asking, self._find_seeds = node_id, disk, asking, find_seeds
        self._clock, self._tell = clock, tell
        self._directory = MemoryIdentityDir(disk)
        self._find_coordinators: Callable[[], Sequence[str]] = tuple
        self._keeper: IdentityKeeper | None = None

    async def obtain(self) -> None:
        """Enrol, as long as it takes, unless there is an identity. Raises what the cluster refuses the token by."""
        held = self._directory.load()
        if held is None:
            held = await enrol_until_let_in(
                self._directory, self._disk, self._node_id, Role.AGENT, self._find_doors, self._asking, self._clock
            )
        self._keeper = IdentityKeeper(
            self._directory, held, self._find_addresses, self._asking, self._clock, self._on_change
        )
        self._before = held

    async def run(self, find_coordinators: Callable[[], Sequence[str]]) -> None:
        assert self._keeper is not None
        self._find_coordinators = find_coordinators
        await self._keeper.run()

    @property
    def credentials(self) -> Credentials:
        assert self._keeper is not None
        return self._keeper.credentials

    @property
    def ready(self) -> bool:
        return self._keeper is not None

    async def _find_doors(self) -> Sequence[str]:
        return self._find_seeds()

    def _find_addresses(self) -> Sequence[str]:
        expired = self.credentials.freshness(self._clock.wall_ms()) is Freshness.EXPIRED
        return self._find_seeds() if expired else self._find_coordinators()

    def _on_change(self, made: Credentials) -> None:
        self._tell(Renewed(self._node_id, self._before, made, self._clock.wall_ms()))
        self._before = made


class Guest:
    """Somebody who only wants in, with a token that others use at the same time. `outcome` says what came of it."""

    def __init__(self, name: str, disk: PaperDisk, asking: Asking, seeds: Sequence[str], clock: Clock) -> None:
        self.name, self._disk, self._asking, self._seeds, self._clock = name, disk, asking, seeds, clock
        self.outcome = ""

    async def run(self) -> None:
        async def find_doors() -> Sequence[str]:
            return self._seeds

        try:
            await enrol_patiently(
                MemoryIdentityDir(self._disk), self._disk.token, self.name, Role.AGENT, find_doors, self._asking,
                self._clock, fetch_root=self._asking.fetch_root,
            )  # fmt: skip
            self.outcome = "in"
        except CloudlessError as error:
            self.outcome = error.code
