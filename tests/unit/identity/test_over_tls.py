"""The whole way over real TLS: a token becomes an identity, which opens the door that wants one, is renewed while it is
used, and brings its owner back after it ran out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from cloudless.adapters.grpc.identity_calls import ask_identity_service
from cloudless.adapters.grpc.status import to_status
from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import IdentityKeeper, enrol
from cloudless.adapters.pki.self_signing import sign_own
from cloudless.adapters.pki.vault import Holdings, found
from cloudless.adapters.system import RandomIds, SystemClock
from cloudless.coordinator.api.access import Access
from cloudless.coordinator.api.enrolment import Enrolment
from cloudless.coordinator.api.identity import IdentityAdmin
from cloudless.coordinator.audit import Auditor
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.guard import Guard
from cloudless.coordinator.issuing import Issuer
from cloudless.coordinator.leases import RecordLeases, RollingLease
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.model import ClusterRecord, Role
from cloudless.errors import CloudlessError, Denied, Unauthenticated, WrongAuthority
from cloudless.ports import Put, Txn
from cloudless.rpc.codec import encode_record
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import objects_pb2
from cloudless.testing.memory_store import MemoryStore
from cloudless.testing.virtual_time import running

CLUSTER_ID = "feedbeef"
LIFETIME_S = 4
METHODS = pb.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name


class Service(grpc.GenericRpcHandler):
    """IdentityService behind a guard."""

    def __init__(self, guard: Guard, *parts: Any) -> None:
        self._guard, self._parts = guard, parts

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.rpartition("/")[2]
        handle = next(getattr(part, name) for part in self._parts if hasattr(part, name))

        async def serve(request: Any, context: Any) -> Any:
            try:
                self._guard.enter(details.method.lstrip("/"), context)
                self._guard.check(details.method.lstrip("/"), request, context)
                return await handle(request, context)
            except CloudlessError as error:
                await context.abort_with_status(to_status(error, "c1"))

        return grpc.unary_unary_rpc_method_handler(
            serve,
            request_deserializer=getattr(pb, METHODS[name].input_type.name).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


class Coordinator:
    """One coordinator with two doors: `address` wants certificates, `join_address` does not."""

    def __init__(self, folder: Path, store: MemoryStore) -> None:
        now_ms = int(time.time() * 1000)
        self.holdings: Holdings = found(CLUSTER_ID, now_ms, leaf_lifetime_s=LIFETIME_S)
        self._folder, self._store, self._clock = folder, store, SystemClock()
        self.replica = Replica(store, self._clock)
        self.committer = Committer(store, self._clock)
        self.address = self.join_address = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        from cloudless.adapters.pki.vault import Vault

        vault = Vault(self._folder / "pki")
        vault.keep(self.holdings)
        issuer = Issuer(vault, self.replica.machine, self._clock)
        leases = RecordLeases(RollingLease(self._store, self._clock), RollingLease(self._store, self._clock))
        access = Access("c1", self.replica, self.committer, leases, self._clock, RandomIds())
        auditor = Auditor("c1", self.committer, leases.events, self._clock, RandomIds())
        guard = Guard(lambda: self.replica.machine, lambda: CLUSTER_ID, tell=auditor.refused)
        self.admin = IdentityAdmin(access, issuer)
        handler = Service(guard, Enrolment(access, issuer, auditor), self.admin)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(self.replica.run(), self.committer.run(), auditor.run()))
            await self.replica.loaded.wait()
            puts = [Put(keys.CLUSTER, encode_record(ClusterRecord(id=CLUSTER_ID)))]
            puts += [Put(keys.authority(record.id), encode_record(record)) for record in self.holdings.records]
            await self._store.txn(Txn(then=tuple(puts)), timeout_s=1)
            self.address = await self._listen(stack, handler, demanding=True)
            self.join_address = await self._listen(stack, handler, demanding=False)
            yield

    async def _listen(self, stack: AsyncExitStack, handler: Service, *, demanding: bool) -> str:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((handler,))
        credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._configuration, require_client_authentication=demanding
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        stack.push_async_callback(server.stop, 0)
        return f"127.0.0.1:{port}"

    def _configuration(self) -> Any:
        own = sign_own(self.holdings, "c1", IdentityDir(self._folder / "own"), int(time.time() * 1000))
        return grpc.ssl_server_certificate_configuration([(own.key_pem, own.chain_pem)], own.roots_pem)

    async def token(self, **fields: Any) -> str:
        request = pb.CreateTokenRequest(**{"role": objects_pb2.ROLE_AGENT, **fields})
        return (await self.admin.CreateToken(request, None)).token

    async def ask(self, address: str, method: str, request: Any, answer: Any, roots_pem: bytes, own: Any) -> Any:
        """As a runtime does: renewals go to the door that wants a certificate."""
        door = self.join_address if own is None else self.address
        return await ask_identity_service(door, method, request, answer, roots_pem, own)


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[Coordinator]:
    made = Coordinator(tmp_path, MemoryStore(time.monotonic))
    async with made.serving():
        yield made


async def join(coordinator: Coordinator, directory: IdentityDir, token: str, name: str = "a1") -> Credentials:
    return await enrol(directory, token, name, Role.AGENT, [coordinator.join_address], coordinator.ask)


async def who_am_i(coordinator: Coordinator, own: Credentials | None, roots: bytes = b"") -> pb.WhoAmIResponse:
    address = coordinator.address if own is not None else coordinator.join_address
    trusted = own.roots_pem if own is not None else roots
    answer: pb.WhoAmIResponse = await ask_identity_service(
        address, "WhoAmI", pb.WhoAmIRequest(), pb.WhoAmIResponse, trusted, own
    )
    return answer


async def until(look: Callable[[], bool], timeout_s: float = 15.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not look():
            await asyncio.sleep(0.02)


async def until_refused(coordinator: Coordinator, own: Credentials, timeout_s: float = 15.0) -> None:
    """TLS libraries judge by whole seconds of a coarse clock, which lags some milliseconds behind ours."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                await who_am_i(coordinator, own)
            except CloudlessError:
                return


async def test_a_token_becomes_an_identity_that_opens_the_door(coordinator: Coordinator, tmp_path: Path) -> None:
    made = await join(coordinator, IdentityDir(tmp_path / "a1"), await coordinator.token())
    answer = await who_am_i(coordinator, made)
    assert (answer.name, answer.role) == ("a1", objects_pb2.ROLE_AGENT)
    with pytest.raises(Unauthenticated, match="needs an identity"):
        await who_am_i(coordinator, None, made.roots_pem)
    with pytest.raises(Denied, match="not for agents"):
        await coordinator.ask("", "CreateToken", pb.CreateTokenRequest(), pb.CreateTokenResponse, made.roots_pem, made)
    await until(lambda: "AccessRefused" in {event.kind for event in coordinator.replica.machine.events.values()})


async def test_a_token_of_another_cluster_is_never_sent(coordinator: Coordinator, tmp_path: Path) -> None:
    parts = (await coordinator.token()).split(".")
    asked: list[str] = []

    async def ask(address: str, method: str, request: Any, answer: Any, roots_pem: bytes, own: Any) -> Any:
        asked.append(method)

    with pytest.raises(WrongAuthority):
        await enrol(
            IdentityDir(tmp_path / "a1"), ".".join([*parts[:3], "a" * 51 + "q"]), "a1", Role.AGENT,
            [coordinator.join_address], ask,
        )  # fmt: skip
    assert asked == []


async def test_certificates_are_renewed_on_both_sides_while_they_are_used(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    """Somebody calls without a pause, until the certificate it began with has run out."""
    directory = IdentityDir(tmp_path / "a1")
    held = await join(coordinator, directory, await coordinator.token())
    changes: list[Credentials] = []
    keeper = IdentityKeeper(directory, held, lambda: [""], coordinator.ask, SystemClock(), changes.append)
    calls = 0
    async with running(keeper.run()), asyncio.timeout(30):
        while held.days_left(int(time.time() * 1000)) > 0 or not changes:
            assert (await who_am_i(coordinator, keeper.credentials)).name == "a1"
            calls += 1
    assert calls > 10
    assert keeper.failures_in_a_row == 0
    await until_refused(coordinator, held)


async def test_who_was_away_too_long_comes_back_by_its_old_certificate(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    directory = IdentityDir(tmp_path / "a1")
    held = await join(coordinator, directory, await coordinator.token())
    await until_refused(coordinator, held)
    keeper = IdentityKeeper(directory, held, lambda: [""], coordinator.ask, SystemClock(), lambda made: None)
    await keeper.step()
    assert keeper.credentials.key_hash == held.key_hash
    assert (await who_am_i(coordinator, keeper.credentials)).name == "a1"
