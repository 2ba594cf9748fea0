"""One coordinator's door: every call is a single attempt, so that its client knows exactly what it knows of its fate.

The clients of the command line try again by themselves, which is right for people and hides from a checker whether
an earlier attempt may have had its effect.
"""

from __future__ import annotations

from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from cloudless.adapters.grpc.channel import INSECURE, Dialler, RenewedChannel
from cloudless.cli.client import CHANNEL_OPTIONS
from cloudless.cli.failover import Failure
from cloudless.cli.failures import to_failure
from cloudless.cli.methods import Method

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


class Door:
    """A channel to one coordinator."""

    def __init__(self, address: str, dialler: Dialler = INSECURE) -> None:
        self.address = address
        self._channel = RenewedChannel(dialler, address, (*CHANNEL_OPTIONS, *_OWN_CONNECTION))

    async def ask(self, method: Method[Q, A], request: Q, timeout_s: float) -> A | Failure:
        """Return the answer, or how this one attempt failed."""
        channel = self._channel.get()
        call = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
        try:
            answer: A = await call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return to_failure(error, self.address, method.writes)
        return answer

    async def close(self) -> None:
        await self._channel.close()
