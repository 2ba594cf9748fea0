"""Keeps a coordinator's certificates fresh, and in step with the authorities: its own, and those of its etcd member.

Signed at the start from the vault, before there is state; again at half of their life; and whenever an authority
changes. What they are used by is told: the server takes new ones for its next connections, channels are opened anew, a
member that must trust another CA has to be restarted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from loguru import logger

from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.etcd_files import EtcdFiles
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.self_signing import coordinator_identity, sign_own
from cloudless.adapters.pki.vault import Holdings
from cloudless.coordinator.commit import Committer
from cloudless.core.identity.plans import plan_own_identity
from cloudless.core.keys import Kind
from cloudless.core.state import Applied, View
from cloudless.errors import CloudlessError
from cloudless.ports import Clock

LOOK_PERIOD_S = 5.0
RECORD_TIMEOUT_S = 5.0


class OwnIdentity:
    """`on_change` is told of new credentials; `on_etcd_roots` that etcd must be restarted to trust another CA."""

    def __init__(
        self,
        own_id: str,
        directory: IdentityDir,
        etcd_files: EtcdFiles,
        find_hosts: Callable[[], Sequence[str]],
        clock: Clock,
        *,
        on_change: Callable[[Credentials], None] = lambda credentials: None,
        on_etcd_roots: Callable[[], None] = lambda: None,
    ) -> None:
        self._own_id, self._directory, self._etcd_files, self._find_hosts = own_id, directory, etcd_files, find_hosts
        self._clock, self._on_change, self._on_etcd_roots = clock, on_change, on_etcd_roots
        self._credentials: Credentials | None = None
        self._signed_for: tuple[object, ...] = ()
        self._etcd_renew_at_ms = 0
        self._changed = asyncio.Event()

    @property
    def credentials(self) -> Credentials:
        assert self._credentials is not None, "sign first"
        return self._credentials

    def sign(self, holdings: Holdings) -> Credentials:
        """Sign what is due, for these holdings; return the credentials to use. Raises BadCredentials, OSError."""
        now_ms, before = self._clock.wall_ms(), self._credentials
        self._credentials = sign_own(holdings, self._own_id, self._directory, now_ms)
        wanted = (holdings.records, tuple(self._find_hosts()))
        if wanted != self._signed_for or now_ms >= self._etcd_renew_at_ms:
            identity = coordinator_identity(holdings, self._own_id)
            written = self._etcd_files.write(holdings, identity, self._find_hosts(), now_ms)
            self._signed_for, self._etcd_renew_at_ms = wanted, written.renew_at_ms
            if written.roots_changed:
                self._on_etcd_roots()
        if before is not None and before != self._credentials:
            logger.info("own certificate renewed, good for {:.2f} days", self._credentials.days_left(now_ms))
            self._on_change(self._credentials)
        return self._credentials

    def on_applied(self, applied: Applied) -> None:
        """Take notice of a change of state."""
        if any(transition.kind in (Kind.AUTHORITY, Kind.IDENTITY) for transition in applied.transitions):
            self._changed.set()

    async def keep(self, holdings: Holdings) -> None:
        """Sign again whenever something is due, until cancelled, with what is at hand before there is state.

        Who waits to join, or stands by as a learner, may do so for longer than a certificate is good for.
        """
        while True:
            await self._clock.sleep(LOOK_PERIOD_S)
            try:
                self.sign(holdings)
            except (CloudlessError, OSError) as error:
                logger.warning("own certificates are not renewed: {}", error)

    async def run(self, find_holdings: Callable[[], Holdings], view: View, committer: Committer) -> None:
        """Sign again whenever something is due or has changed, and have the own key on record, until cancelled.

        What the record says of cluster keys is true when it is written: a key is on disk before it is found here.
        """
        while True:
            try:
                holdings = find_holdings()
                self.sign(holdings)
                await self._record(view, committer, [key.name for key in holdings.keys])
            except (CloudlessError, OSError) as error:
                logger.warning("own certificates are not renewed: {}", error)
            self._changed.clear()
            try:
                async with asyncio.timeout(LOOK_PERIOD_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _record(self, view: View, committer: Committer, cluster_keys: Sequence[str]) -> None:
        if not view.authorities:
            return
        now_ms = self._clock.wall_ms()
        change = plan_own_identity(view, self._own_id, self.credentials.key_hash, cluster_keys, now_ms)
        if change is not None:
            logger.info("{}", change.reason)
            await committer.commit(change, timeout_s=RECORD_TIMEOUT_S)
