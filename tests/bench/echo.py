"""The transport's own ceiling: a gRPC server on asyncio that does nothing, in a process of its own.

`python -m tests.bench.echo` prints its port and serves until its standard input ends, which also happens when
whoever started it dies. Messages are bytes that nobody parses.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio

from cloudless.adapters.grpc.channel import INSECURE
from cloudless.adapters.grpc.server import SERVER_OPTIONS
from tests.bench.children import Child, start_module
from tests.bench.load import Step

_UNARY, _STREAM = "/bench.Echo/Unary", "/bench.Echo/Stream"


class Echo:
    """The running echo server and one client channel to it."""

    def __init__(self, child: Child, channel: grpc.aio.Channel) -> None:
        self._child = child
        self._unary: Any = channel.unary_unary(_UNARY)
        self._stream: Any = channel.unary_stream(_STREAM)

    @classmethod
    async def start(cls, stack: AsyncExitStack) -> Echo:
        child = await start_module(stack, "tests.bench.echo")
        port = int(await child.read_line())
        channel = INSECURE.open(f"127.0.0.1:{port}")
        stack.push_async_callback(channel.close)
        await asyncio.wait_for(channel.channel_ready(), 10.0)
        return cls(child, channel)

    def step(self, in_flight: int) -> Step:
        """Return empty unary calls by so many callers at once."""
        return Step(lambda _: self._unary(b""), in_flight)

    async def receive(self, duration_s: float) -> int:
        """Return how many messages one stream brought in this time."""
        call, received = self._stream(b""), 0
        try:
            async with asyncio.timeout(duration_s):
                async for _ in call:
                    received += 1
        except TimeoutError:
            pass
        finally:
            call.cancel()
        return received


class _Handler(grpc.GenericRpcHandler):
    def service(self, details: Any) -> Any:
        if details.method == _UNARY:
            return grpc.unary_unary_rpc_method_handler(_answer)
        return grpc.unary_stream_rpc_method_handler(_pour)


async def _answer(request: bytes, context: object) -> bytes:
    return request


async def _pour(request: bytes, context: object) -> AsyncIterator[bytes]:
    while True:
        yield b""


async def _serve() -> None:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((_Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve())
