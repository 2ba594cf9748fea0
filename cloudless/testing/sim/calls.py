"""Calls between coordinators as production makes them: over a `Dialler` whose channels are the simulated network.

`ask_formation`, `call_once` and whoever else holds a stub runs unchanged; what a handler raises arrives as the typed
error that gRPC's status would have become.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from cloudless.adapters.grpc.channel import Dialler
from cloudless.coordinator.credentials import OwnCredentials
from cloudless.errors import StoreTimeout

CallUnary = Callable[[str, str, str, Any, float], Awaitable[Any]]
"""(address, service, method, request, timeout_s): an awaitable answer. Raises its typed error, or TimeoutError."""

TIMEOUT_S = 10.0


class SimChannel:
    """What a generated stub needs of a channel."""

    def __init__(self, address: str, call: CallUnary) -> None:
        self._address, self._call = address, call

    def unary_unary(self, path: str, **serializers: Any) -> Callable[..., Awaitable[Any]]:
        service, _, method = path.rpartition(".")[2].partition("/")

        async def call(request: Any, timeout: float = TIMEOUT_S) -> Any:
            try:
                return await self._call(self._address, service, method, request, timeout)
            except TimeoutError as error:
                raise StoreTimeout(f"{method}: no answer from {self._address}") from error

        return call

    unary_stream = stream_stream = stream_unary = unary_unary

    async def close(self) -> None:
        return


class SimDialler:
    """The `Dialler` of one process."""

    def __init__(self, call: CallUnary) -> None:
        self._call = call

    def open(self, address: str, *_: Any) -> SimChannel:
        return SimChannel(address, self._call)


class SimOwn(OwnCredentials):
    """A coordinator's credentials as its member care knows them: how to dial others, and etcd's scheme."""

    def __init__(self, call: CallUnary) -> None:
        self._dialler = SimDialler(call)

    @property
    def dialler(self) -> Dialler:
        return cast(Dialler, self._dialler)
