"""The client for asyncio: the same attempts, deadlines and request ids as `cloudless.cli.client.Client`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from cloudless.adapters.grpc.channel import INSECURE, Dialler, RenewedChannel
from cloudless.cli.client import CHANNEL_OPTIONS, limits_of, with_request_id
from cloudless.cli.failover import Failover
from cloudless.cli.failures import to_failure
from cloudless.cli.methods import Method
from cloudless.observability import tracing

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


class AsyncClient:
    """Calls to whichever coordinator answers, for one event loop. Several calls may run at once."""

    def __init__(
        self, addresses: tuple[str, ...] | list[str], timeout_s: float = 10.0, dialler: Dialler = INSECURE
    ) -> None:
        self.addresses = tuple(addresses)
        self.timeout_s = timeout_s
        self._dialler = dialler
        self._channels: dict[str, RenewedChannel] = {}
        self._preferred = 0

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        while self._channels:
            await self._channels.popitem()[1].close()

    async def call(self, method: Method[Q, A], request: Q, *, timeout_s: float | None = None) -> A:
        """Return the answer. Raises the coordinator's typed error, or Unavailable when none could be had."""
        request = with_request_id(method, request)
        limits = limits_of(method, timeout_s or self.timeout_s)
        attempts = Failover(self.addresses, limits, time.monotonic(), self._preferred)
        while True:
            call = self._channel(attempts.address).unary_unary(
                method.path, method.request.SerializeToString, method.response.FromString
            )
            try:
                timeout = attempts.attempt_timeout_s(time.monotonic())
                answer: A = await call(request, timeout=timeout, metadata=tracing.metadata())
            except grpc.aio.AioRpcError as error:
                failure = to_failure(error, attempts.address, method.writes)
                await asyncio.sleep(attempts.pause_after(failure, time.monotonic()))
            else:
                self._preferred = attempts.index
                return answer

    async def stream(self, method: Method[Q, A], request: Q) -> AsyncIterator[A]:
        """Yield the answers of a streaming call to the preferred coordinator; a failure makes the next preferred."""
        index = self._preferred % len(self.addresses)
        call: Any = self._channel(self.addresses[index]).unary_stream(
            method.path, method.request.SerializeToString, method.response.FromString
        )(request)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            self._preferred = index + 1
            raise to_failure(error, self.addresses[index], method.writes).error from error
        finally:
            call.cancel()

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = RenewedChannel(self._dialler, address, CHANNEL_OPTIONS)
        return self._channels[address].get()
