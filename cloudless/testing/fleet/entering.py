"""Let many simulated agents in: each gets a certificate of its own, by the same calls as a real one.

What a real agent does once for itself is done once for all of them: finding the CA that the token names, and opening a
channel to the door of each coordinator.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from cloudless.adapters.grpc.channel import CHANNEL_OPTIONS, Dialler, known_as
from cloudless.adapters.grpc.status import from_rpc_error
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import enrol
from cloudless.adapters.pki.pinning import fetch_pinned_root
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.core.identity.rules import PACKAGE
from cloudless.core.model import Role
from cloudless.ports import Credentials

_CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Invitation:
    """A token with enough uses, the doors (addresses) that take it, and where certificates are kept."""

    token: str
    doors: tuple[str, ...]
    home: Path


@dataclass(slots=True)
class Doors:
    """The way in for all agents of one process. Close `stack` when all are in."""

    invitation: Invitation
    stack: AsyncExitStack
    _roots: dict[str, str] = field(default_factory=dict)
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    _turn: Any = field(default_factory=count)

    async def enter(self, name: str) -> Dialler:
        """Enrol one agent and return what it dials with."""
        first = next(self._turn) % len(self.invitation.doors)
        doors = (*self.invitation.doors[first:], *self.invitation.doors[:first])
        directory = IdentityDir(self.invitation.home / name)
        made = await enrol(
            directory, self.invitation.token, name, Role.AGENT, doors, self._ask, fetch_root=self._fetch_root
        )
        return Dialler(lambda: made)

    async def _fetch_root(self, address: str, pin: str) -> str:
        if pin not in self._roots:
            self._roots[pin] = await fetch_pinned_root(address, pin)
        return self._roots[pin]

    async def _ask(
        self, address: str, method: str, request: Message, answer: type[Any], roots_pem: bytes, own: Credentials | None
    ) -> Any:
        if address not in self._channels:
            credentials = grpc.ssl_channel_credentials(roots_pem)
            options = (*CHANNEL_OPTIONS, *known_as(ANY_COORDINATOR))
            self._channels[address] = grpc.aio.secure_channel(address, credentials, options=options)
            self.stack.push_async_callback(self._channels[address].close)
        call = self._channels[address].unary_unary(
            f"/{PACKAGE}IdentityService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            return await call(request, timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
