"""Call IdentityService over TLS: with an identity, or without one at the door that asks for none.

Each call has a channel of its own: they are rare, and what is trusted and shown differs from call to call.
"""

from __future__ import annotations

from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import Message

from cloudless.adapters.grpc.channel import CHANNEL_OPTIONS
from cloudless.adapters.grpc.status import from_rpc_error
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.core.identity.rules import PACKAGE

CALL_TIMEOUT_S = 10.0


class Shown(Protocol):
    """What of an identity is shown to a server."""

    @property
    def key_pem(self) -> bytes: ...
    @property
    def chain_pem(self) -> bytes: ...


async def ask_identity_service(
    address: str, method: str, request: Message, answer: type[Any], roots_pem: bytes, own: Shown | None
) -> Any:
    """Return the answer of `IdentityService/<method>` at `host:port`. Raises typed errors."""
    credentials = grpc.ssl_channel_credentials(
        roots_pem, own.key_pem if own is not None else None, own.chain_pem if own is not None else None
    )
    options = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", ANY_COORDINATOR)]
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        call = channel.unary_unary(
            f"/{PACKAGE}IdentityService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            return await call(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
