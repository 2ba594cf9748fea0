"""Ask another coordinator one thing over a channel of its own: for one that does not belong to a cluster yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import grpc
import grpc.aio

from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.grpc.status import from_rpc_error
from cloudless.errors import CloudlessError
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1.cluster_pb2_grpc import ClusterServiceStub

T = TypeVar("T")

ASK_TIMEOUT_S = 1.5


async def call_once(dialler: Dialler, address: str, call: Callable[[Any], Awaitable[T]]) -> T:
    """Return what `call` of the ClusterService at `address` answers. Raises CloudlessError."""
    return await call_service_once(dialler, address, ClusterServiceStub, call)


async def call_service_once(
    dialler: Dialler, address: str, stub: Callable[[Any], Any], call: Callable[[Any], Awaitable[T]]
) -> T:
    """Return what `call` of a service at `address` answers. Raises CloudlessError."""
    channel = dialler.open(address)
    try:
        return await call(stub(channel))
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        await channel.close()


async def ask_formation(
    dialler: Dialler, addresses: Iterable[str], *, timeout_s: float = ASK_TIMEOUT_S
) -> dict[str, pb.GetFormationResponse]:
    """Return, by address, what each brings to the forming of a cluster. Silent ones are left out."""

    async def ask(address: str) -> tuple[str, pb.GetFormationResponse | None]:
        try:
            return address, await call_once(
                dialler, address, lambda stub: stub.GetFormation(pb.GetFormationRequest(), timeout=timeout_s)
            )
        except CloudlessError:
            return address, None

    found = await asyncio.gather(*(ask(address) for address in addresses))
    return {address: answer for address, answer in found if answer is not None}
