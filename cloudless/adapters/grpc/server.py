"""Serve protobuf services on asyncio: one table of methods, one wrapper around each.

The wrapper turns bytes that do not parse into InvalidSpec instead of a crash, typed errors into rich
statuses, anything else into INTERNAL with a log entry, and counts and times every call. A port that
another process serves is an error at start, never shared in silence. With credentials every caller must
have a certificate of the same authority; who it is and what it may ask is judged by the door before anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from loguru import logger

from cloudless.adapters.grpc.channel import MESSAGE_BYTES_MAX
from cloudless.adapters.grpc.status import to_status
from cloudless.errors import CloudlessError, InvalidSpec, PortInUse, Problem
from cloudless.observability import tracing
from cloudless.observability.fields import bind
from cloudless.ports import Credentials, CredentialSource
from cloudless.rpc import codec

REQUEST_BYTES_MAX = 2 << 20
"""Twice the largest manifest. Parsing a hostile map takes 0.3 s at this size, but 20 s at 16 MiB, all of it in the loop
that also renews the lease."""

HANDSHAKE_MAX_MS = 30_000
"""Who has not ended the TLS handshake by then is thrown out; gRPC itself would wait for two minutes. Longer than agents
wait: when thousands come at once theirs are only late."""
IDLE_MAX_MS = 300_000
CONNECTIONS_AT_ONCE_MAX = 10_000
"""On each address; one that nobody has calls on for `IDLE_MAX_MS` is closed."""

SERVER_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 4_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MAX_MS),
    ("grpc.max_connection_idle_ms", IDLE_MAX_MS),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS_AT_ONCE_MAX),
)
RPCS_AT_ONCE_MAX = 20_000

Observe = Callable[[str, str, float | None], None]
"""Told of every finished call: full method name, outcome code ("ok" or an error's code), seconds if it is no stream."""


Resolve = Callable[[str], Callable[..., Any]]


class Answer(Protocol):
    """A message, or what is sent as one."""

    def SerializeToString(self) -> bytes: ...


class Door(Protocol):
    """Judges every call; methods are `package.Service/Method`. Raises Unauthenticated, Denied."""

    def enter(self, method: str, context: Any) -> None:
        """Let the caller in; called in the task that serves the call, first of all."""
        ...

    def check(self, method: str, message: Any, context: Any) -> None:
        """Judge a request, or one message of a stream of them; None: only whether the caller is still who it was."""
        ...


class _OpenDoor:
    """Everybody may do everything: where nobody can be told from anybody."""

    def enter(self, method: str, context: Any) -> None:
        return None

    def check(self, method: str, message: Any, context: Any) -> None:
        return None


class _Unreadable:
    """Stands for a request whose bytes are not the message they should be."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Reflection(reflection.aio.ReflectionServicer):
    """Server reflection behind the door: what is served here is not everybody's business either."""

    def __init__(self, names: list[str], guard: Callable[[str, Any], Any], door: Door) -> None:
        super().__init__(names)
        self._guard, self._door = guard, door

    async def ServerReflectionInfo(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        name = f"{reflection.SERVICE_NAME}/ServerReflectionInfo"
        async with self._guard(name, context):
            self._door.enter(name, context)
            async for answer in super().ServerReflectionInfo(request_iterator, context):
                yield answer


class GrpcServer:
    """Services on one address. `resolve(name)` of a service returns the method to call, or raises a typed error.

    With credentials callers at `address` must show a certificate. Those that have none yet come to `open_address`,
    where nobody is asked for one: what they may do there is for the door to say.
    """

    def __init__(
        self,
        address: str,
        own_id: str,
        *,
        observe: Observe | None = None,
        rpcs_at_once_max: int = RPCS_AT_ONCE_MAX,
        credentials: CredentialSource | None = None,
        door: Door | None = None,
        open_address: str = "",
    ) -> None:
        self._address, self._own_id, self._credentials = address, own_id, credentials
        self._observe = observe or (lambda method, outcome, took_s: None)
        self._door: Door = door or _OpenDoor()
        self._open_address = open_address
        self._server = grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=rpcs_at_once_max)
        self._names: list[str] = []
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def add(self, descriptor: Any, resolve: Resolve) -> None:
        """Serve every method of the service `descriptor` by what `resolve` returns for its name at each call."""
        handlers = {
            method.name: self._handler(f"{descriptor.full_name}/{method.name}", method, resolve)
            for method in descriptor.methods
        }
        generic = grpc.method_handlers_generic_handler(descriptor.full_name, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        self._names.append(descriptor.full_name)

    async def start(self) -> int:
        """Listen and serve; return the port. Raises PortInUse."""
        names = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            _Reflection(names, self._guard, self._door), self._server
        )
        port = self._listen(self._address, ask_certificate=True)
        if self._open_address and self._credentials is not None:
            self._listen(self._open_address, ask_certificate=False)
        await self._server.start()
        return port

    def _listen(self, address: str, *, ask_certificate: bool) -> int:
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, _server_credentials(self._credentials, ask_certificate))
        except RuntimeError as error:
            raise PortInUse(f"cannot listen on {address}", hint=_port_hint(address)) from error
        if port == 0:
            raise PortInUse(f"cannot listen on {address}", hint=_port_hint(address))
        return port

    async def set_serving(self, serving: bool) -> None:
        """Say through the health service whether requests should come here."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        await self._server.stop(grace_s)

    # --- one method ---

    def _handler(self, name: str, method: Any, resolve: Resolve) -> Any:
        def behaviour(*arguments: Any) -> Any:
            return resolve(method.name)(*arguments)

        request_class = message_factory.GetMessageClass(method.input_type)

        def parse(raw: bytes) -> Message | _Unreadable:
            try:
                message = request_class()
                message.ParseFromString(raw)
                return message
            except (DecodeError, ValueError) as error:
                return _Unreadable(str(error))

        build: dict[tuple[bool, bool], tuple[Any, Any]] = {
            (False, False): (grpc.unary_unary_rpc_method_handler, self._unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, self._stream),
            (True, True): (grpc.stream_stream_rpc_method_handler, self._duplex),
        }
        make, wrap = build[method.client_streaming, method.server_streaming]
        return make(
            wrap(name, behaviour),
            request_deserializer=parse,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _unary(self, name: str, behaviour: Callable[..., Awaitable[Answer]]) -> Any:
        async def serve(request: Any, context: Any) -> Answer:
            async with self._guard(name, context, timed=True):
                with _traced(name, context):
                    return await behaviour(self._admit(name, request, context), context)
            raise AssertionError("the guard aborts or returns")

        return serve

    def _stream(self, name: str, behaviour: Callable[..., AsyncGenerator[Message, None]]) -> Any:
        async def serve(request: Any, context: Any) -> AsyncIterator[Message]:
            # Closed with the call: what a stream holds (files, other calls) must not wait for the collector.
            async with (
                self._guard(name, context),
                contextlib.aclosing(behaviour(self._admit(name, request, context), context)) as stream,
            ):
                async for message in stream:
                    self._door.check(name, None, context)  # who was locked out meanwhile is told no more
                    yield message

        return serve

    def _duplex(self, name: str, behaviour: Callable[..., AsyncGenerator[Message, None]]) -> Any:
        async def readable(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Message]:
            async for request in requests:
                message = _readable(request)
                self._door.check(name, message, context)
                yield message

        async def serve(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Message]:
            async with self._guard(name, context):
                self._door.enter(name, context)
                async with contextlib.aclosing(behaviour(readable(requests, context), context)) as stream:
                    async for message in stream:
                        self._door.check(name, None, context)
                        yield message

        return serve

    def _admit(self, name: str, request: Any, context: Any) -> Any:
        """Return the request, if its caller may ask for this and it is readable. Raises InvalidSpec, Denied."""
        self._door.enter(name, context)
        message = _readable(request)
        self._door.check(name, message, context)
        return message

    @contextlib.asynccontextmanager
    async def _guard(self, name: str, context: Any, *, timed: bool = False) -> AsyncIterator[None]:
        bind(method=name)
        began_s = time.monotonic()

        def note(outcome: str) -> None:
            self._observe(name, outcome, time.monotonic() - began_s if timed else None)

        try:
            yield
        except codec.Malformed as error:
            note(InvalidSpec.code)
            await context.abort_with_status(to_status(InvalidSpec([Problem("", str(error))]), self._own_id))
        except CloudlessError as error:
            note(error.code)
            await context.abort_with_status(to_status(error, self._own_id))
        except (asyncio.CancelledError, grpc.aio.AbortError):
            note("cancelled")
            raise
        except Exception as error:  # a bug must not reach the caller as silence, nor stop the server
            note("internal")
            logger.exception("{} failed", name)
            await context.abort_with_status(to_status(CloudlessError(f"internal error: {error!r}"), self._own_id))
        else:
            note("ok")


def _server_credentials(source: CredentialSource, ask_certificate: bool) -> grpc.ServerCredentials:
    """Return credentials that are asked for at each handshake, so that a renewed certificate needs no restart."""
    shown = source()

    def renewed() -> Any:
        nonlocal shown
        now = source()
        if now is shown:
            return None
        shown = now
        return _to_configuration(now)

    return grpc.dynamic_ssl_server_credentials(_to_configuration(shown), renewed, ask_certificate)


def _to_configuration(credentials: Credentials) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(credentials.key_pem, credentials.chain_pem)], root_certificates=credentials.roots_pem
    )


def _traced(name: str, context: Any) -> tracing.Span:
    """Begin the span of a call: of its caller's trace, if it names one. Streams are not traced: they last."""
    if not tracing.is_on():
        return tracing.NO_SPAN
    sent = dict(context.invocation_metadata() or ())
    return tracing.call_span("grpc", name, str(sent.get(tracing.TRACEPARENT_KEY, "")))


def _readable(request: Any) -> Any:
    if isinstance(request, _Unreadable):
        raise InvalidSpec([Problem("", f"the request is not a readable message: {request.reason}")])
    return request


def _port_hint(address: str) -> str:
    return f"another process listens on {address}, or it is not an address of this machine: choose another"
