"""etcd without us: puts and ranges through the same compiled messages, channel options and client process.

A put is a transaction of one operation, which is what etcd makes of a put. Keys lie outside cloudless' own prefix,
so that no coordinator follows them.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio

from cloudless.adapters.etcd.store import RECEIVE_BYTES_MAX, prefix_end
from cloudless.adapters.etcd.v3 import rpc_pb2 as pb
from cloudless.adapters.etcd.v3.rpc_pb2_grpc import KVStub
from tests.bench.load import Step

PREFIX = "/bench/"
VALUE = os.urandom(256)
_KEYS = 10_000
_TIMEOUT_S = 30.0
_OPTIONS = (
    ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


class RawEtcd:
    """One channel to each member, by `host:port` of its client address."""

    def __init__(self, stack: AsyncExitStack, endpoints: list[str]) -> None:
        self._stubs = []
        for endpoint in endpoints:
            channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
            stack.push_async_callback(channel.close)
            self._stubs.append(KVStub(channel))  # type: ignore[no-untyped-call]
        self._puts = 0

    def puts(self, in_flight: int, *, spread: bool) -> Step:
        """Return puts of 256 bytes, spread over the members or all through the first."""
        return Step(lambda caller: self.put(caller if spread else 0), in_flight)

    def put(self, member: int, timeout_s: float = _TIMEOUT_S) -> Any:
        self._puts += 1
        key = f"{PREFIX}{self._puts % _KEYS:05d}".encode()
        request = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=key, value=VALUE))])
        return self._stubs[member % len(self._stubs)].Txn(request, timeout=timeout_s)

    def range(self, member: int, prefix: str, limit: int, *, serializable: bool = False) -> Any:
        request = pb.RangeRequest(
            key=prefix.encode(), range_end=prefix_end(prefix), limit=limit, serializable=serializable
        )
        return self._stubs[member % len(self._stubs)].Range(request, timeout=_TIMEOUT_S)
