"""Channels between cloudless processes: quick to notice a dead peer, quick to try again, no proxies.

With credentials, both sides prove who they are. A server is known by a name that its certificate carries for what
it *is* (`coordinator.cloudless`), never by the address it was dialled at: addresses may all change. A channel keeps
the credentials it was opened with, so whoever holds one for long opens a new one after a renewal.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from cloudless.core.discovery.addresses import is_ip, split_address
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.ports import Credentials, CredentialSource

MESSAGE_BYTES_MAX = 16 << 20
DRAIN_S = 10.0
"""How long calls on a channel of old credentials may go on."""

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
        return _open(address, self.credentials() if self.credentials else None, name, options)


INSECURE = Dialler()


class RenewedChannel:
    """A channel to one server that follows its credentials: calls after a renewal go over another one.

    Without that a process that runs longer than a certificate could not connect again once a connection is lost. What
    is under way on the old channel has `DRAIN_S` to end. For one event loop; close it.
    """

    def __init__(self, dialler: Dialler, address: str, options: ChannelOptions = CHANNEL_OPTIONS) -> None:
        self._dialler, self._address, self._options = dialler, address, options
        self._channel: grpc.aio.Channel | None = None
        self._shown: Credentials | None = None
        self._draining: set[asyncio.Task[None]] = set()

    def get(self) -> grpc.aio.Channel:
        """Return the channel for the next call. Raises what the source of credentials does."""
        now = self._dialler.credentials() if self._dialler.credentials else None
        if self._channel is None or now is not self._shown:
            old, self._shown = self._channel, now
            self._channel = _open(self._address, now, ANY_COORDINATOR, self._options)
            if old is not None:
                self._drain(old)
        return self._channel

    async def close(self) -> None:
        for draining in tuple(self._draining):
            draining.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    def _drain(self, old: grpc.aio.Channel) -> None:
        draining = asyncio.create_task(old.close(DRAIN_S), name="old-channel")
        self._draining.add(draining)
        draining.add_done_callback(self._draining.discard)


def _open(address: str, own: Credentials | None, name: str, options: ChannelOptions) -> grpc.aio.Channel:
    if own is None:
        return grpc.aio.insecure_channel(target_of(address), options=options)
    return grpc.aio.secure_channel(target_of(address), to_channel_credentials(own), options=(*options, *known_as(name)))


def target_of(address: str) -> str:
    """Return what gRPC calls an address; for an IP address such that it does not set out to look up a name."""
    try:
        host, port = split_address(address)
    except ValueError:
        return address
    if not is_ip(host):
        return address
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def to_channel_credentials(credentials: Credentials) -> grpc.ChannelCredentials:
    """Return gRPC's form of what a client proves itself by."""
    return grpc.ssl_channel_credentials(credentials.roots_pem, credentials.key_pem, credentials.chain_pem)


def known_as(name: str) -> ChannelOptions:
    """Return the channel options that make the server prove to be `name`."""
    return (("grpc.ssl_target_name_override", name),)
