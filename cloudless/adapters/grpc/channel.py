"""Channels between cloudless processes: quick to notice a dead peer, quick to try again, no proxies.

With credentials, both sides prove who they are. A server is known by a name that its certificate carries for what
it *is* (`coordinator.cloudless`), never by the address it was dialled at: addresses may all change. A channel keeps
the credentials it was opened with, so whoever holds one for long opens a new one after a renewal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.ports import Credentials, CredentialSource

MESSAGE_BYTES_MAX = 16 << 20

ChannelOptions = tuple[tuple[str, Any], ...]

CHANNEL_OPTIONS: ChannelOptions = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long one try to connect may take: several round trips with TLS, over slow lines, to a busy host.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Dialler:
    """Opens channels with the credentials of now; without a source nothing is encrypted and nobody proves anything."""

    credentials: CredentialSource | None = None

    def open(
        self, address: str, name: str = ANY_COORDINATOR, options: ChannelOptions = CHANNEL_OPTIONS
    ) -> grpc.aio.Channel:
        """Return a channel to the server that proves to be `name`; it connects on first use. Close it."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(address, options=options)
        own = to_channel_credentials(self.credentials())
        return grpc.aio.secure_channel(address, own, options=(*options, *known_as(name)))


INSECURE = Dialler()


def to_channel_credentials(credentials: Credentials) -> grpc.ChannelCredentials:
    """Return gRPC's form of what a client proves itself by."""
    return grpc.ssl_channel_credentials(credentials.roots_pem, credentials.key_pem, credentials.chain_pem)


def known_as(name: str) -> ChannelOptions:
    """Return the channel options that make the server prove to be `name`."""
    return (("grpc.ssl_target_name_override", name),)
