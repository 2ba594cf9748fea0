"""Leases for records that are kept for a while and then go by themselves: remembered requests, events.

One lease serves many records and is renewed by granting the next, ahead of need, so that no write has to
wait for one.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from cloudless.core.hygiene.room import CURE
from cloudless.errors import CloudlessError, CommitUncertain, LeaseLost, NoSpace, Unavailable
from cloudless.ports import Clock, Store

LEASE_LOOK_PERIOD_S = 2.0
# Short tries, as for transactions: a request in flight while etcd's leader dies is lost.
GRANT_TIMEOUT_S = 0.4
GRANT_PAUSE_S = 0.05
GRANT_TRIES = 5


class RollingLease:
    """One lease for many short-lived records (remembered requests, events), renewed by granting the next.

    A record is kept at least `kept_s` and at most twice that.
    """

    def __init__(self, store: Store, clock: Clock, *, kept_s: int = 600) -> None:
        self._store, self._clock, self._kept_s = store, clock, kept_s
        self._lease_id = 0
        self._granted_s = 0.0
        self._granting = asyncio.Lock()

    @property
    def held(self) -> int:
        """The lease granted last; 0 if there is none."""
        return self._lease_id

    async def current(self) -> int:
        """Return a lease that lives at least `kept_s` longer; half of that while the store grants none."""
        if self._is_young():
            return self._lease_id
        async with self._granting:
            if self._is_young():  # another caller may have granted it meanwhile
                return self._lease_id
            age_s = self._clock.monotonic_s() - self._granted_s
            granted_s = self._clock.monotonic_s()
            try:
                self._lease_id, self._granted_s = await self._grant(), granted_s
            except NoSpace:
                # Not even a lease fits: live on with the old one, or nothing could be deleted to make room.
                await self._prolong(granted_s)
            except Unavailable:
                if not self._lease_id or age_s > 1.5 * self._kept_s:
                    raise
            return self._lease_id

    async def _prolong(self, now_s: float) -> None:
        """Keep the lease held alive. Raises NoSpace if there is none any more."""
        try:
            if self._lease_id and await self._store.keep_alive(self._lease_id, timeout_s=GRANT_TIMEOUT_S):
                self._granted_s = now_s
                return
        except (LeaseLost, Unavailable) as error:
            raise NoSpace("the store has no room for a lease", hint=CURE) from error
        raise NoSpace("the store has no room for a lease", hint=CURE)

    def _is_young(self) -> bool:
        return bool(self._lease_id) and self._clock.monotonic_s() - self._granted_s <= self._kept_s

    async def _grant(self) -> int:
        """Grant within `GRANT_TRIES` tries; a lease granted without our knowing simply runs out."""
        for _ in range(GRANT_TRIES):
            try:
                return (await self._store.grant(2 * self._kept_s, timeout_s=GRANT_TIMEOUT_S)).id
            except (CommitUncertain, Unavailable):
                await self._clock.sleep(GRANT_PAUSE_S)
        raise Unavailable("the store did not grant a lease in time", hint="try again in a moment")

    def forget(self) -> None:
        """Drop the lease after the store said it does not exist (LeaseLost)."""
        self._lease_id = 0


@dataclass(frozen=True, slots=True)
class RecordLeases:
    """The leases under which requests (ten minutes) and events (an hour) are kept."""

    requests: RollingLease
    events: RollingLease

    async def run(self, clock: Clock) -> None:
        """Keep both leases granted ahead of need, so that no write has to wait for one."""
        while True:
            with contextlib.suppress(CloudlessError):
                await self.requests.current()
                await self.events.current()
            await clock.sleep(LEASE_LOOK_PERIOD_S)

    def forget(self) -> None:
        """Grant anew after the store said that a lease is gone; which one, it does not say."""
        self.requests.forget()
        self.events.forget()
