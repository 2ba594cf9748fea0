"""One stream to one coordinator, as a session sees it: messages out, messages in, and an end.

The seam between sessions and gRPC. `SessionStream` is all that a session needs of a connection, so that what
sessions do can be run over a simulated network; `dial` opens the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import grpc
import grpc.aio

from cloudless.adapters.grpc.channel import ChannelOptions, Dialler
from cloudless.adapters.grpc.status import from_rpc_error
from cloudless.adapters.http.asking import ask_tcp
from cloudless.agent.config import AgentLimits
from cloudless.core.discovery.addresses import split_address
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.errors import CloudlessError
from cloudless.rpc.v1 import agent_pb2
from cloudless.rpc.v1.agent_pb2_grpc import AgentServiceStub


class StreamBroken(Exception):
    """The stream ended under a read or a write; the message says how, `refusal` what the coordinator had against it."""

    def __init__(self, message: str, refusal: CloudlessError | None = None) -> None:
        self.refusal = refusal
        super().__init__(message)


class SessionStream(Protocol):
    """An open stream. Reading and writing raise StreamBroken once it has ended, whoever ended it."""

    async def write(self, message: agent_pb2.AgentMessage) -> None: ...

    async def read(self) -> agent_pb2.CoordinatorMessage: ...

    def cancel(self) -> None:
        """End it at once: nothing more is sent or received."""
        ...

    async def close(self) -> None:
        """Free what it holds, after `cancel`."""
        ...

    async def knock(self) -> bool:
        """Return whether the machine at the other end takes connections, whatever its coordinator does with them."""
        ...


Dial = Callable[[str], SessionStream]
"""Opens a stream to the coordinator at `host:port`; that it cannot be reached is told by the first read or write."""


def channel_options(limits: AgentLimits) -> ChannelOptions:
    """Return the options of a channel to a coordinator: quick to notice death, one try to connect, no proxy."""
    patience_ms = int(limits.connect_timeout_max_s * 1000)
    return (
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A session is one try to connect, for as long as the session waits: one given up within that and begun anew
        # would lose its place among all who knock. When to try again is the sessions' keeper's to say.
        ("grpc.initial_reconnect_backoff_ms", patience_ms),
        ("grpc.min_reconnect_backoff_ms", patience_ms),
        ("grpc.max_reconnect_backoff_ms", patience_ms),
        ("grpc.enable_http_proxy", 0),
        # A redial must not be handed a connection that another session found dead.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", limits.message_bytes_max),
        ("grpc.max_send_message_length", limits.message_bytes_max),
    )


def grpc_dial(dialler: Dialler, limits: AgentLimits) -> Dial:
    """Return what opens gRPC streams."""
    return lambda address: _GrpcStream(address, dialler.open(address, ANY_COORDINATOR, channel_options(limits)))


class _GrpcStream:
    """A SessionStream on a gRPC channel of its own."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self._address, self._channel = address, channel
        self._call: Any = AgentServiceStub(self._channel).Session()  # type: ignore[no-untyped-call]

    async def write(self, message: agent_pb2.AgentMessage) -> None:
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise _to_broken(error) from error
        except asyncio.InvalidStateError as error:
            raise StreamBroken("stream ended") from error

    async def read(self) -> agent_pb2.CoordinatorMessage:
        try:
            message = await self._call.read()
            if message is not grpc.aio.EOF:
                received: agent_pb2.CoordinatorMessage = message
                return received
            code = await self._call.code()
        except grpc.aio.AioRpcError as error:
            raise _to_broken(error) from error
        except asyncio.InvalidStateError as error:
            raise StreamBroken("stream ended") from error
        raise StreamBroken(f"ended by the coordinator ({code.name})")

    def cancel(self) -> None:
        self._call.cancel()

    async def close(self) -> None:
        await self._channel.close()

    async def knock(self) -> bool:
        try:
            return not await ask_tcp(*split_address(self._address))
        except ValueError:  # gRPC takes more for an address than we do
            return False


def _to_broken(error: grpc.aio.AioRpcError) -> StreamBroken:
    return StreamBroken(f"{error.code().name}: {error.details()}", from_rpc_error(error))
