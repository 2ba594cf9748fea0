"""Calls to IdentityService by those who have no channel yet, and maybe no identity (see `pki.joining.Ask`)."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from cloudless.adapters.grpc.channel import CHANNEL_OPTIONS, known_as, to_channel_credentials
from cloudless.adapters.grpc.status import from_rpc_error
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.ports import Credentials

CALL_TIMEOUT_S = 10.0


async def ask_identity(
    address: str, method: str, request: Message, answer: type[Any], roots_pem: bytes, own: Credentials | None
) -> Any:
    """Return what the coordinator at `address`, which proves itself by `roots_pem`, answers. Raises typed errors."""
    credentials = grpc.ssl_channel_credentials(roots_pem) if own is None else to_channel_credentials(own)
    channel = grpc.aio.secure_channel(address, credentials, (*CHANNEL_OPTIONS, *known_as(ANY_COORDINATOR)))
    path = f"/cloudless.rpc.v1.IdentityService/{method}"
    try:
        call = channel.unary_unary(path, type(request).SerializeToString, answer.FromString)
        return await call(request, timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        await channel.close()
