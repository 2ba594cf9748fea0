"""Ask another coordinator one thing over a channel of its own: for one that does not belong to a cluster yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import grpc
import grpc.aio

from cloudless.adapters.grpc.channel import open_channel
from cloudless.adapters.grpc.status import from_rpc_error
from cloudless.errors import CloudlessError
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1.cluster_pb2_grpc import ClusterServiceStub

T = TypeVar("T")

ASK_TIMEOUT_S = 1.5


async def call_once(address: str, call: Callable[[Any], Awaitable[T]]) -> T:
    """Return what `call` of the ClusterService at `address` answers. Raises CloudlessError."""
    channel = open_channel(address)
    try:
        return await call(ClusterServiceStub(channel))  # type: ignore[no-untyped-call]
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        await channel.close()


async def ask_formation(
    addresses: Iterable[str], *, timeout_s: float = ASK_TIMEOUT_S
) -> dict[str, pb.GetFormationResponse]:
    """Return, by address, what each brings to the forming of a cluster. Silent ones are left out."""

    async def ask(address: str) -> tuple[str, pb.GetFormationResponse | None]:
        try:
            return address, await call_once(
                address, lambda stub: stub.GetFormation(pb.GetFormationRequest(), timeout=timeout_s)
            )
        except CloudlessError:
            return address, None

    found = await asyncio.gather(*(ask(address) for address in addresses))
    return {address: answer for address, answer in found if answer is not None}


async def resolve_all(addresses: Iterable[str]) -> list[str]:
    """Return every address the names stand for (`host:port`); a name that does not resolve is left as it is."""
    found: dict[str, None] = {}
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            answers = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=1)
        except OSError:
            found[address] = None
            continue
        for *_, socket_address in answers:
            ip = socket_address[0]
            found[f"[{ip}]:{port}" if ":" in str(ip) else f"{ip}:{port}"] = None
    return list(found)
