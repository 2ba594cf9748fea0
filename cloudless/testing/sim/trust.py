"""Who may talk to whom in a world with certificates: the first authorities, handshakes, and the door of every call.

What a server does at its door is `adapters.grpc.server`'s told again for simulated connections: the guard is asked
when a call opens and again with each message, either way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from cloudless.adapters.pki.certificate import read_peer
from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.vault import found
from cloudless.core import keys
from cloudless.core.identity.rules import PACKAGE
from cloudless.core.identity.tokens import SECRET_BYTES, Token, token_id_from
from cloudless.core.model import AuthorityPhase, AuthorityPurpose, AuthorityRecord, Role, TokenRecord
from cloudless.errors import StoreTimeout, Unavailable
from cloudless.ports import Clock, Put
from cloudless.rpc.codec import encode_record
from cloudless.testing.sim.clock import WALL_START_MS
from cloudless.testing.sim.etcd_cluster import host_of
from cloudless.testing.sim.handshake import judge_handshake
from cloudless.testing.sim.happenings import LetIn
from cloudless.testing.sim.loop import Process
from cloudless.testing.sim.options import Certificates
from cloudless.testing.sim.papers import AgentPapers, Asking, CoordinatorPapers, PaperDisk
from cloudless.testing.sim.streams import CallContext, Connection, call_unary

if TYPE_CHECKING:
    from cloudless.testing.sim.agent import AgentLife
    from cloudless.testing.sim.coordinator import CoordinatorLife
    from cloudless.testing.sim.world import World

CLUSTER_ID = "simulated"
CALL_TIMEOUT_S = 1.0
"""Of one call to IdentityService: ten seconds in production, where a certificate lives a day."""
CLOCK_ERROR_SHARE = 0.02
"""How wrong a clock may be set, as a part of a certificate's life; it is dated back by a tenth."""
TOKEN_TTL_MS = 600_000
STREAMS = {"sessions": "AgentService/Session", "peers": "PeerService/Link"}


class Trust:
    """The world's side of trust."""

    def __init__(self, world: World, certificates: Certificates) -> None:
        self._world, self.certificates = world, certificates
        self.random = Random(f"trust-{world.options.seed}")
        self.holdings = found(CLUSTER_ID, WALL_START_MS, leaf_lifetime_s=certificates.lifetime_s)
        self.disks: dict[str, PaperDisk] = {name: PaperDisk(holdings=self.holdings) for name in world.coordinator_ids}
        token, record = self.draw_token(Role.AGENT, uses=len(world.node_ids), now_ms=WALL_START_MS)
        world.plant(Put(keys.token(token.id), encode_record(record)))
        for node_id in world.node_ids:
            self.disks[node_id] = PaperDisk(token=token.text)

    def draw_token(
        self, role: Role, *, uses: int, now_ms: int, names: tuple[str, ...] = ()
    ) -> tuple[Token, TokenRecord]:
        """Return a token and what the cluster keeps of it."""
        signing = self._find_signing()
        pin = signing.pin if signing else self.holdings.get_issuing(AuthorityPurpose.CLUSTER).pin
        token = Token(token_id_from(self.random.randbytes(16)), self.random.randbytes(SECRET_BYTES), pin)
        record = TokenRecord(
            id=token.id, secret_hash=token.secret_hash, role=role, names=names, uses_total=uses, uses_left=uses,
            created_at_ms=now_ms, expires_at_ms=now_ms + TOKEN_TTL_MS, pin=pin,
        )  # fmt: skip
        return token, record

    def bound_jump(self, name: str, jump_ms: int) -> int:
        """Return how far a clock is set instead: never wrong by more than certificates stand."""
        bound_ms = int(self.certificates.lifetime_s * 1000 * CLOCK_ERROR_SHARE)
        wished_ms = bound_ms if jump_ms > 0 else -bound_ms
        return wished_ms - self._world.clocks[name].wall_offset_ms

    # --- parts of lives ---

    def papers_of(self, life: CoordinatorLife) -> CoordinatorPapers:
        disk = self.disks.setdefault(life.id, PaperDisk())
        return CoordinatorPapers(life, disk, self.asking(life.process, life.clock), self._find_seeds, self._world.tell)

    def papers_of_agent(self, life: AgentLife) -> AgentPapers:
        asking = self.asking(life.process, life.host.clock)
        return AgentPapers(life.id, self.disks[life.id], asking, self._find_seeds, life.host.clock, self._world.tell)

    def _find_seeds(self) -> tuple[str, ...]:
        return tuple(self._world.address_of(id) for id in self._world.coordinator_ids)

    def find_credentials(self, name: str) -> Credentials | None:
        """Return what a living process shows, None if it has nothing."""
        life = self._world.life(name)
        if life is None or life.papers is None or not life.papers.ready:
            return None
        return life.papers.credentials

    def is_stranded(self, name: str) -> bool:
        """Return whether a host cannot come back by itself: its token or all it trusts is of a CA that is gone."""
        disk = self.disks[name]
        if disk.held is None:
            return disk.useless
        held = [one.record for one in self._world.truth.authorities.values()]
        if self.is_waiting(name):
            return bool(held) and not any(disk.held.chain_pem.endswith(one.certificate_pem.encode()) for one in held)
        signing = self._find_signing()
        expired = self._world.clocks[name].wall_ms() >= disk.held.validity.not_after_ms
        return expired and signing is not None and signing.certificate_pem.encode() not in disk.held.roots_pem

    def _find_signing(self) -> AuthorityRecord | None:
        """Return the CA that signs for all but etcd, None before it is on record."""
        for held in self._world.truth.authorities.values():
            if held.record.purpose is AuthorityPurpose.CLUSTER and held.record.phase is AuthorityPhase.ISSUING:
                return held.record
        return None

    def is_waiting(self, name: str) -> bool:
        """Return whether it is a coordinator that signs with what it was handed: it hears of no replaced CA."""
        life = self._world.coordinators.get(name)
        return life is not None and not life.serves

    # --- handshakes ---

    def _shake_hands(self, source: str, life: CoordinatorLife) -> bytes:
        """Return the chain that `source` has shown. Raises Unavailable if no connection comes about."""
        own, server = self.find_credentials(source), self.find_credentials(life.id)
        if own is None or server is None:
            raise Unavailable("one of both has no certificate")
        now_ms = self._world.clocks[source].wall_ms()
        why = judge_handshake(own, now_ms, own.roots_pem, server, life.clock.wall_ms())
        if why:
            self._world.trace.note(source, f"shakes no hands with {life.id}: {why}")
            raise Unavailable(f"handshake failed: {why}")
        return own.chain_pem

    def open_stream(self, connection: Connection, source: str, life: CoordinatorLife, service: str) -> Any:
        """Return what serves a stream, None if the handshake fails."""
        try:
            chain_pem = self._shake_hands(source, life)
        except Unavailable:
            return None
        connection.context = CallContext(self._world.loop, 0.0, source, chain_pem)
        return life.process, self._guarded_stream(life, PACKAGE + STREAMS[service], life.serve(service))

    def open_call(self, source: str, life: CoordinatorLife, service: str, method: str) -> Any:
        """Return what serves a call of a coordinator."""
        try:
            chain_pem = self._shake_hands(source, life)
        except Unavailable as error:
            return life.process, partial(_refuse, error)
        return life.process, self._guarded_call(life, service, method, source, chain_pem)

    # --- doors ---

    def _guarded_call(
        self, life: CoordinatorLife, service: str, method: str, source: str, chain_pem: bytes | None
    ) -> Any:
        name = f"{PACKAGE}{service}/{method}"

        async def handle(request: Any, context: CallContext) -> Any:
            assert life.papers is not None
            context = context.shown(source, chain_pem)
            life.papers.guard.enter(name, context)
            life.papers.guard.check(name, request, context)
            self._told(life, name, chain_pem)
            return await life.find_method(service, method)(request, context)

        return handle

    def _guarded_stream(self, life: CoordinatorLife, name: str, serve: Any) -> Any:
        async def handle(requests: AsyncIterator[Any], context: Any) -> AsyncGenerator[Any, None]:
            assert life.papers is not None
            guard, chain_pem = life.papers.guard, context.auth_context()["x509_pem_cert"][0]

            async def readable() -> AsyncIterator[Any]:
                async for message in requests:
                    guard.check(name, message, context)
                    self._told(life, name, chain_pem)
                    yield message

            guard.enter(name, context)
            async with aclosing(serve(readable(), context)) as answers:
                async for answer in answers:
                    guard.check(name, None, context)
                    yield answer

        return handle

    def _told(self, life: CoordinatorLife, name: str, chain_pem: bytes | None) -> None:
        self._world.tell(LetIn(life, name, read_peer(chain_pem) if chain_pem is not None else None))

    # --- IdentityService ---

    def asking(self, process: Process, clock: Clock) -> Asking:
        return Asking(partial(self._ask, process.name, clock), partial(self._find_chain, process.name))

    async def _ask(
        self, source: str, clock: Clock, address: str, method: str, request: Any, roots_pem: bytes,
        own: Credentials | None,
    ) -> Any:  # fmt: skip
        target = host_of(address)

        def find_handler() -> Any:
            life, server = self._world.coordinators.get(target), self.find_credentials(target)
            if life is None or not life.process.alive or server is None:
                return None
            why = judge_handshake(own, clock.wall_ms(), roots_pem, server, life.clock.wall_ms())
            if why:
                return life.process, partial(_refuse, Unavailable(f"handshake failed: {why}"))
            shown = own.chain_pem if own is not None else None
            return life.process, self._guarded_call(life, "IdentityService", method, source, shown)

        return await self._call(source, target, find_handler, request)

    async def _find_chain(self, source: str, address: str) -> bytes:
        target = host_of(address)

        def find_handler() -> Any:
            life, server = self._world.coordinators.get(target), self.find_credentials(target)
            if life is None or not life.process.alive or server is None:
                return None

            async def show(request: Any, context: Any) -> bytes:
                return server.chain_pem

            return life.process, show

        chain: bytes = await self._call(source, target, find_handler, None)
        return chain

    async def _call(self, source: str, target: str, find_handler: Any, request: Any) -> Any:
        world = self._world
        try:
            return await call_unary(world.loop, world.network, source, target, find_handler, request, CALL_TIMEOUT_S)
        except TimeoutError as error:
            raise StoreTimeout(f"no answer from {target}") from error


async def _refuse(error: Unavailable, request: Any, context: Any) -> Any:
    raise error
