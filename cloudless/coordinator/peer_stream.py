"""One dialled stream to another coordinator, as a link sees it: beats out, answers in, and an end.

The seam between links and gRPC, so that what links do can be run over a simulated network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import grpc
import grpc.aio

from cloudless.adapters.grpc.channel import Dialler
from cloudless.rpc.v1 import peer_pb2 as pb
from cloudless.rpc.v1.peer_pb2_grpc import PeerServiceStub


class LinkBroken(Exception):
    """The stream ended under a read or a write."""


class PeerStream(Protocol):
    """An open stream; `ended` is set when it ends. Reading and writing raise LinkBroken then."""

    ended: asyncio.Event

    async def write(self, beat: pb.PeerBeat) -> None: ...

    async def read(self) -> pb.PeerBeatAck: ...

    async def close(self) -> None: ...


PeerDial = Callable[[str], PeerStream]
"""Opens a stream to the coordinator at `host:port`; that it cannot be reached is told by the first read or write."""


def grpc_dial(dialler: Dialler) -> PeerDial:
    """Return what opens streams over gRPC."""
    return lambda address: _GrpcPeerStream(dialler.open(address))


class _GrpcPeerStream:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.ended = asyncio.Event()
        self._channel = channel
        self._call: Any = PeerServiceStub(self._channel).Link()  # type: ignore[no-untyped-call]
        self._call.add_done_callback(lambda _: self.ended.set())

    async def write(self, beat: pb.PeerBeat) -> None:
        try:
            await self._call.write(beat)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise LinkBroken(repr(error)) from error

    async def read(self) -> pb.PeerBeatAck:
        try:
            answer = await self._call.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise LinkBroken(repr(error)) from error
        if answer is grpc.aio.EOF:
            raise LinkBroken("the link was closed")
        received: pb.PeerBeatAck = answer
        return received

    async def close(self) -> None:
        self._call.cancel()
        await self._channel.close()
