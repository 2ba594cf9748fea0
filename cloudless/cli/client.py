"""A client of the cluster: any coordinator will do, and the death of one is not the caller's problem.

A call goes to one coordinator; if that fails in a way another can mend, the next is asked, within one deadline
and, for writes, under one request id. The coordinator that answered last is asked first next time. Raises typed
errors only. `Client` blocks and is for one thread; `cloudless.cli.aio.AsyncClient` is the same for asyncio.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message

from cloudless.adapters.grpc.channel import known_as, to_channel_credentials
from cloudless.cli.failover import Failover, Limits
from cloudless.cli.failures import to_failure
from cloudless.cli.methods import Method
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.observability import tracing
from cloudless.ports import Credentials

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

_MESSAGE_BYTES_MAX = 64 * 1024**2
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_http_proxy", 0),
    # grpc's own default grows to two minutes: a coordinator that came back would stay unseen as long.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long one try to connect may take: several round trips with TLS, over slow lines, to a busy host.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
)


def _open(address: str, credentials: Credentials | None) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(address, CHANNEL_OPTIONS)
    options = (*CHANNEL_OPTIONS, *known_as(ANY_COORDINATOR))
    return grpc.secure_channel(address, to_channel_credentials(credentials), options)


def with_request_id(method: Method[Q, Any], request: Q) -> Q:
    """Return the request, a write without an id under a fresh one."""
    named: Any = request
    if not method.writes or named.options.request_id:
        return request
    copy: Any = method.request()
    copy.CopyFrom(request)
    copy.options.request_id = uuid.uuid4().hex
    return cast("Q", copy)


def limits_of(method: Method[Any, Any], timeout_s: float) -> Limits:
    return Limits(timeout_s=timeout_s, attempt_s=method.attempt_s, repeatable=method.repeatable)


class Client:
    """Calls to whichever coordinator answers. Close it, or use it as a context."""

    def __init__(
        self, addresses: tuple[str, ...] | list[str], timeout_s: float = 10.0, credentials: Credentials | None = None
    ) -> None:
        self.addresses = tuple(addresses)
        self.timeout_s = timeout_s
        self._credentials = credentials
        self._channels: dict[str, grpc.Channel] = {}
        self._preferred = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        while self._channels:
            self._channels.popitem()[1].close()

    def call(self, method: Method[Q, A], request: Q, *, timeout_s: float | None = None) -> A:
        """Return the answer. Raises the coordinator's typed error, or Unavailable when none could be had."""
        request = with_request_id(method, request)
        attempts = self._attempts(method, timeout_s or self.timeout_s)
        while True:
            call = self._channel(attempts.address).unary_unary(
                method.path, method.request.SerializeToString, method.response.FromString
            )
            try:
                timeout = attempts.attempt_timeout_s(time.monotonic())
                answer: A = call(request, timeout=timeout, metadata=tracing.metadata())
            except grpc.RpcError as error:
                time.sleep(attempts.pause_after(to_failure(error, attempts.address, method.writes), time.monotonic()))
            else:
                self._preferred = attempts.index
                return answer

    def stream(self, method: Method[Q, A], request: Q, *, timeout_s: float | None = None) -> Iterator[A]:
        """Yield the answers of a streaming call, without an end in time unless `timeout_s` is given.

        Until the first answer the next coordinator is tried; after that a failure is raised, because only the
        caller knows from where to go on.
        """
        attempts = self._attempts(method, self.timeout_s)
        while True:
            begun = False
            call = self._channel(attempts.address).unary_stream(
                method.path, method.request.SerializeToString, method.response.FromString
            )(request, timeout=timeout_s)
            try:
                for answer in call:
                    begun, self._preferred = True, attempts.index
                    yield answer
                return
            except grpc.RpcError as error:
                failure = to_failure(error, attempts.address, method.writes)
                if begun:
                    self._preferred = attempts.index + 1
                    raise failure.error from error
                time.sleep(attempts.pause_after(failure, time.monotonic()))
            finally:
                call.cancel()

    def duplex(self, method: Method[Q, A], open_requests: Callable[[], Iterator[Q]]) -> Iterator[A]:
        """Yield the answers to a stream of requests; `open_requests` begins it anew for each coordinator tried.

        As with `stream` that is until the first answer. Requests are taken in a thread of gRPC's.
        """
        attempts = self._attempts(method, self.timeout_s)
        while True:
            begun = False
            call = self._channel(attempts.address).stream_stream(
                method.path, method.request.SerializeToString, method.response.FromString
            )(open_requests())
            try:
                for answer in call:
                    begun, self._preferred = True, attempts.index
                    yield answer
                return
            except grpc.RpcError as error:
                failure = to_failure(error, attempts.address, method.writes)
                if begun:
                    raise failure.error from error
                time.sleep(attempts.pause_after(failure, time.monotonic()))
            finally:
                call.cancel()

    def _attempts(self, method: Method[Any, Any], timeout_s: float) -> Failover:
        return Failover(self.addresses, limits_of(method, timeout_s), time.monotonic(), self._preferred)

    def _channel(self, address: str) -> grpc.Channel:
        if address not in self._channels:
            self._channels[address] = _open(address, self._credentials)
        return self._channels[address]
