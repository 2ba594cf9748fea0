"""The `Store` port on etcd's native gRPC API: the hot path.

Talks to one member only, the coordinator's own: a coordinator whose member is cut off must notice it,
not borrow another's. Errors of gRPC are sorted into "surely not done" (Unavailable), "may be done"
(CommitUncertain) and the typed rest; etcd tells some of them apart only by their text, so this file is
the one place that reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import grpc
import grpc.aio

from cloudless.adapters.etcd.v3 import rpc_pb2 as pb
from cloudless.adapters.etcd.v3.rpc_pb2_grpc import KVStub, LeaseStub, MaintenanceStub, WatchStub
from cloudless.errors import (
    CloudlessError,
    CommitUncertain,
    Compacted,
    InvariantBroken,
    LeaseLost,
    NoSpace,
    TooLarge,
    Unavailable,
)
from cloudless.ports import (
    Compare,
    Credentials,
    CredentialSource,
    Delete,
    Done,
    Event,
    Get,
    Got,
    KeyValue,
    Lease,
    Page,
    Put,
    Relation,
    Target,
    Txn,
    TxnResult,
    WatchBatch,
)

T = TypeVar("T")

RECEIVE_BYTES_MAX = 64 << 20
"""A page of 5,000 large values; gRPC's own limit of 4 MiB would refuse it."""

_CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
    ("grpc.max_send_message_length", RECEIVE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),  # etcd refuses pings more often than every 5 s
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 200),  # how long one try to connect may take: to this very host
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)

_DRAIN_S = 5.0

# A watch or request on a member without a leader fails at once instead of hanging in silence.
_REQUIRE_LEADER = (("hasleader", "true"),)

_RESULTS = {
    Relation.EQUAL: pb.Compare.EQUAL,
    Relation.NOT_EQUAL: pb.Compare.NOT_EQUAL,
    Relation.GREATER: pb.Compare.GREATER,
    Relation.LESS: pb.Compare.LESS,
}


class EtcdStore:
    """One member's key space. `endpoint` is `host:port` of its client address, which its certificate must name."""

    def __init__(self, endpoint: str, credentials: CredentialSource | None = None) -> None:
        self._endpoint, self._credentials = endpoint, credentials
        self._shown: Credentials | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._connect()

    def _connect(self) -> None:
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self._endpoint, options=_CHANNEL_OPTIONS)
        else:
            self._shown = own = self._credentials()
            tls = grpc.ssl_channel_credentials(own.roots_pem, own.key_pem, own.chain_pem)
            self._channel = grpc.aio.secure_channel(self._endpoint, tls, options=_CHANNEL_OPTIONS)
        self._kv = KVStub(self._channel)  # type: ignore[no-untyped-call]
        self._lease = LeaseStub(self._channel)  # type: ignore[no-untyped-call]
        self._watch = WatchStub(self._channel)  # type: ignore[no-untyped-call]
        self._maintenance = MaintenanceStub(self._channel)  # type: ignore[no-untyped-call]

    def renew(self) -> None:
        """Use the credentials of now for what is asked from now on, if they have changed.

        Calls under way end on the old connection; a watch there breaks after `_DRAIN_S` and is resumed by its owner.
        """
        if self._credentials is None or self._credentials() is self._shown:
            return
        old = self._channel
        self._connect()
        closing = asyncio.create_task(old.close(_DRAIN_S), name="old-etcd-channel")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def txn(self, txn: Txn, *, timeout_s: float) -> TxnResult:
        response = await _write(self._kv.Txn(_to_txn(txn), timeout=timeout_s, metadata=_REQUIRE_LEADER))
        return _from_txn(response, response.header.revision)

    async def read_page(
        self, prefix: str, *, start_after: str = "", revision: int = 0, limit: int = 5000, timeout_s: float = 5.0
    ) -> Page:
        request = pb.RangeRequest(
            key=start_after.encode() + b"\0" if start_after else prefix.encode(),
            range_end=prefix_end(prefix),
            limit=limit,
            revision=revision,
        )
        response = await _read(self._kv.Range(request, timeout=timeout_s))
        return Page(
            kvs=tuple(_from_kv(kv) for kv in response.kvs),
            revision=revision or response.header.revision,
            more=response.more,
            cluster_id=response.header.cluster_id,
        )

    async def current_revision(self, *, timeout_s: float) -> int:
        request = pb.RangeRequest(key=b"\0", limit=1, count_only=True)
        response = await _read(self._kv.Range(request, timeout=timeout_s, metadata=_REQUIRE_LEADER))
        revision: int = response.header.revision
        return revision

    def watch(self, prefix: str, *, start_revision: int) -> EtcdWatch:
        return EtcdWatch(self._watch.Watch(metadata=_REQUIRE_LEADER), prefix, start_revision)

    async def snapshot(self) -> AsyncIterator[bytes]:
        """Yield this member's database piece by piece, its SHA-256 last. Raises Unavailable if it breaks off."""
        call = self._maintenance.Snapshot(pb.SnapshotRequest())
        try:
            async for response in call:
                yield response.blob
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"the snapshot of etcd broke off: {_text(error)}") from error
        finally:
            call.cancel()

    async def grant(self, ttl_s: int, *, timeout_s: float) -> Lease:
        response = await _write(self._lease.LeaseGrant(pb.LeaseGrantRequest(TTL=ttl_s), timeout=timeout_s))
        return Lease(response.ID, response.TTL)

    async def keep_alive(self, lease_id: int, *, timeout_s: float) -> int:
        call = self._lease.LeaseKeepAlive(timeout=timeout_s, metadata=_REQUIRE_LEADER)
        try:
            await call.write(pb.LeaseKeepAliveRequest(ID=lease_id))
            response = await call.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise Unavailable(f"lease {lease_id:x} could not be renewed: {_text(error)}") from error
        finally:
            call.cancel()
        if response is grpc.aio.EOF:
            raise Unavailable(f"lease {lease_id:x} could not be renewed: the stream ended")
        if response.TTL <= 0:
            raise LeaseLost(f"lease {lease_id:x} has expired")
        ttl_s: int = response.TTL
        return ttl_s

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        try:
            await _write(self._lease.LeaseRevoke(pb.LeaseRevokeRequest(ID=lease_id), timeout=timeout_s))
        except LeaseLost:
            return

    async def compact(self, revision: int, *, timeout_s: float) -> None:
        with contextlib.suppress(Compacted):
            await _read(self._kv.Compact(pb.CompactionRequest(revision=revision, physical=True), timeout=timeout_s))

    async def close(self) -> None:
        await self._channel.close()


class EtcdWatch:
    """One watch stream; fragments are put together again, so a batch always holds whole revisions."""

    def __init__(self, call: Any, prefix: str, start_revision: int) -> None:
        if start_revision <= 0:
            raise ValueError("a watch starts at a revision > 0; 0 would silently mean now")
        self._call = call
        self._create = pb.WatchRequest(
            create_request=pb.WatchCreateRequest(
                key=prefix.encode(),
                range_end=prefix_end(prefix),
                start_revision=start_revision,
                progress_notify=True,
                fragment=True,
            )
        )
        self._created = asyncio.Event()
        self._writing = asyncio.Lock()

    async def __aiter__(self) -> AsyncIterator[WatchBatch]:
        held: list[Event] = []
        try:
            await self._call.write(self._create)
            while True:
                response = await self._call.read()
                if response is grpc.aio.EOF:
                    raise Unavailable(f"the watch ended: {await self._call.details()}")
                self._raise_if_cancelled(response)
                if response.created:
                    self._created.set()
                    continue
                held.extend(_from_event(event) for event in response.events)
                if response.fragment:
                    continue
                # The header's revision covers these events only when there are none (etcd may have more to send).
                yield WatchBatch(held[-1].kv.mod_revision if held else response.header.revision, tuple(held))
                held = []
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise Unavailable(f"the watch broke: {_text(error)}") from error
        except asyncio.CancelledError:
            # Whoever reads a call that is cancelled gets this from grpc, and must not take it for its own end.
            if _being_cancelled():
                raise

    @staticmethod
    def _raise_if_cancelled(response: pb.WatchResponse) -> None:
        if response.canceled:
            if response.compact_revision:
                raise Compacted(response.compact_revision)
            raise Unavailable(f"etcd cancelled the watch: {response.cancel_reason or 'no reason given'}")

    async def request_progress(self) -> None:
        # grpc cancels the whole call with the task that writes to it, and breaks it if two write at once.
        await asyncio.shield(asyncio.create_task(self._write_progress_request(), name="watch-progress"))

    async def _write_progress_request(self) -> None:
        async with self._writing:
            if self._created.is_set() and not self._call.done():
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
                    await self._call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def close(self) -> None:
        self._call.cancel()


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def prefix_end(prefix: str) -> bytes:
    """Return the first key after all keys that start with `prefix` (ASCII)."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1])


# --- translation --------------------------------------------------------------------------------


def _to_txn(txn: Txn) -> pb.TxnRequest:
    return pb.TxnRequest(
        compare=[_to_compare(compare) for compare in txn.compares],
        success=[_to_op(op) for op in txn.then],
        failure=[_to_op(op) for op in txn.orelse],
    )


def _to_compare(compare: Compare) -> pb.Compare:
    key, result = compare.key.encode(), _RESULTS[compare.relation]
    if compare.target is Target.CREATE:
        return pb.Compare(result=result, target=pb.Compare.CREATE, key=key, create_revision=compare.revision)
    return pb.Compare(result=result, target=pb.Compare.MOD, key=key, mod_revision=compare.revision)


def _to_op(op: Put | Delete | Get | Txn) -> pb.RequestOp:
    match op:
        case Put(key, value, lease_id):
            return pb.RequestOp(request_put=pb.PutRequest(key=key.encode(), value=value, lease=lease_id))
        case Delete(key):
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key.encode()))
        case Get(key):
            return pb.RequestOp(request_range=pb.RangeRequest(key=key.encode()))
        case Txn():
            return pb.RequestOp(request_txn=_to_txn(op))


def _from_txn(response: pb.TxnResponse, revision: int) -> TxnResult:
    return TxnResult(response.succeeded, revision, tuple(_from_op(op, revision) for op in response.responses))


def _from_op(op: pb.ResponseOp, revision: int) -> Done | Got | TxnResult:
    match op.WhichOneof("response"):
        case "response_put":
            return Done()
        case "response_delete_range":
            return Done(op.response_delete_range.deleted)
        case "response_range":
            kvs = op.response_range.kvs
            return Got(_from_kv(kvs[0]) if kvs else None)
        case _:
            return _from_txn(op.response_txn, revision)


def _from_kv(kv: Any) -> KeyValue:
    return KeyValue(kv.key.decode("utf-8", "replace"), kv.value, kv.create_revision, kv.mod_revision, kv.lease)


def _from_event(event: Any) -> Event:
    return Event(_from_kv(event.kv), deleted=event.type == 1)


# --- errors -------------------------------------------------------------------------------------

# "server stopped" is not among them: etcd says so of writes that it has proposed already.
_NOT_DONE = ("too many requests", "no leader", "not supported for learner", "not capable", "future revision")


def _text(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name.lower().replace('_', ' ')}: {error.details()}"
    return str(error) or type(error).__name__


def _known(error: grpc.aio.AioRpcError) -> CloudlessError | None:
    """Return the typed error for answers whose meaning is certain, None for the rest."""
    details = (error.details() or "").lower()
    if "required revision has been compacted" in details:
        return Compacted(0)
    if "lease not found" in details:
        return LeaseLost("the lease has expired")
    if "database space exceeded" in details:
        return NoSpace(
            "etcd's space quota is used up; reads work, writes are refused",
            hint="compact and defragment the members, then disarm the alarm",
        )
    if "request is too large" in details or "too many operations" in details or "larger than max" in details:
        return TooLarge(f"etcd refused the transaction: {error.details()}")
    if "duplicate key" in details:
        return InvariantBroken(f"etcd refused the transaction: {error.details()}")
    if any(text in details for text in _NOT_DONE):
        return Unavailable(f"etcd: {error.details()}")
    return None


async def _read(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise (_known(error) or Unavailable(f"etcd: {_text(error)}")) from error


async def _write(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise (_known(error) or CommitUncertain(f"etcd: {_text(error)}")) from error
