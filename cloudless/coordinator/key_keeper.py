"""Every coordinator's part in a replacement of the cluster key: it fetches what it should hold, and drops the rest.

It asks the other coordinators, each over a connection on which both prove who they are. An answer is believed for its
name: that is a hash of the key, and it stands in the state.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from loguru import logger

from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.pki.sealing import ClusterKey
from cloudless.coordinator.asking import call_service_once
from cloudless.coordinator.issuing import Issuer
from cloudless.core.identity.key_rotation import find_standing, outworn_keys, wanted_keys
from cloudless.core.keys import Kind
from cloudless.core.state import Applied, View
from cloudless.errors import CloudlessError
from cloudless.ports import Clock
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1.identity_pb2_grpc import IdentityServiceStub

LOOK_PERIOD_S = 30.0
FETCH_RETRY_PAUSE_S = 1.0
FETCH_TIMEOUT_S = 3.0

FetchKey = Callable[[str, str], Awaitable[bytes]]
"""Asks the coordinator at an address for the key of a name. Raises CloudlessError."""


def fetch_over_grpc(dialler: Dialler) -> FetchKey:
    async def fetch(address: str, name: str) -> bytes:
        request = pb.FetchClusterKeyRequest(name=name)
        answer = await call_service_once(
            dialler,
            address,
            IdentityServiceStub,
            lambda stub: stub.FetchClusterKey(request, timeout=FETCH_TIMEOUT_S),
        )
        return bytes(answer.cluster_key)

    return fetch


class KeyKeeper:
    """Holds every cluster key that the state names. `run` it where there is TLS."""

    def __init__(self, own_id: str, view: View, issuer: Issuer, fetch: FetchKey, clock: Clock) -> None:
        self._own_id, self._view, self._issuer, self._fetch, self._clock = own_id, view, issuer, fetch, clock
        self._changed = asyncio.Event()

    def on_applied(self, applied: Applied) -> None:
        """Take notice of a change of state."""
        if any(transition.kind in (Kind.AUTHORITY, Kind.KEY_ROTATION) for transition in applied.transitions):
            self._changed.set()

    async def run(self) -> None:
        """Fetch and drop, until cancelled."""
        while True:
            self._changed.clear()
            pause_s = LOOK_PERIOD_S
            try:
                if await self._fetch_missing():
                    pause_s = FETCH_RETRY_PAUSE_S
                await self._drop_outworn()
            except (CloudlessError, OSError) as error:
                logger.warning("the cluster keys on disk are not as they should be: {}", error)
                pause_s = FETCH_RETRY_PAUSE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def _fetch_missing(self) -> set[str]:
        """Return what could not be fetched. Raises Unavailable, BadCredentials, OSError."""
        missing = set(wanted_keys(self._view) - set(self._issuer.key_names()))
        for name in sorted(missing):
            key = await self._find(name)
            if key is not None:
                await self._issuer.add_key(key)
                missing.discard(name)
                logger.info("the cluster key {} is held from now on", name)
        return missing

    async def _find(self, name: str) -> ClusterKey | None:
        for address in self._addresses(name):
            try:
                key = ClusterKey(await self._fetch(address, name))
            except CloudlessError as error:
                logger.debug("the cluster key {} from {}: {}", name, address, error)
                continue
            if key.name == name:
                return key
            logger.warning("{} answers with another cluster key than {}", address, name)
        return None

    def _addresses(self, name: str) -> list[str]:
        """Return where the other coordinators are, those first that say they hold the key."""
        others = []
        for record in self._view.coordinators.values():
            known = find_standing(self._view, record.id)
            if record.id != self._own_id and record.api_address and known is not None:
                others.append((name not in known.record.cluster_keys, record.id, record.api_address))
        return [address for _, _, address in sorted(others)]

    async def _drop_outworn(self) -> None:
        outworn = outworn_keys(self._view, self._issuer.key_names(), self._clock.wall_ms())
        if outworn:
            await self._issuer.drop_keys(outworn)
            logger.info("the cluster key {} is forgotten", ", ".join(sorted(outworn)))
