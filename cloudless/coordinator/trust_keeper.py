"""The leader's care for trust: the first authorities, their replacement in time, tokens that are over.

All of it is planned by `cloudless.core.identity`; here it is looked at every few seconds and committed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from loguru import logger

from cloudless.adapters.pki.authority import new_authority, reseal_authority
from cloudless.adapters.pki.sealing import ClusterKey
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.controllers import commit_changes
from cloudless.coordinator.issuing import Issuer
from cloudless.coordinator.leases import RollingLease
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.identity.key_rotation import (
    KeyStep,
    decide_key_step,
    find_key_rotation,
    is_key_rotating,
    plan_announcement,
    plan_resealing,
)
from cloudless.core.identity.plans import plan_bootstrap, plan_disowned_tokens, plan_identity_reap, plan_token_reap
from cloudless.core.identity.rotation import (
    authorities_of,
    next_generation,
    outworn,
    plan_rotation,
    plan_rotation_start,
)
from cloudless.core.model import (
    AuthorityPhase,
    AuthorityPurpose,
    AuthorityRecord,
    ClusterRecord,
    EventRecord,
    KeyRotationRecord,
)
from cloudless.core.plan import Change, PutRecord
from cloudless.core.state import View
from cloudless.errors import BadCredentials, LeaseLost, Unavailable
from cloudless.ports import Clock, Ids

PERIOD_S = 2.0
UNNAMED_PERIOD_S = 0.2
"""Authorities are founded as soon as the cluster has its name: before that no founder is on record, and one whose etcd
fails is nobody to the others."""


class TrustKeeper:
    """A controller of the leader."""

    def __init__(
        self,
        own_id: str,
        replica: Replica,
        issuer: Issuer,
        lease: RollingLease,
        clock: Clock,
        ids: Ids,
        voters: Callable[[], frozenset[str]],
    ) -> None:
        self._own_id, self._replica, self._issuer, self._lease = own_id, replica, issuer, lease
        self._clock, self._ids, self._voters = clock, ids, voters
        self._key_found_at_s = clock.monotonic_s()
        # For which wish which key was made: announced as soon as the store takes it, and not another with each try.
        self._made: tuple[KeyRotationRecord | None, ClusterKey] | None = None

    async def run(self, term: int, committer: Committer) -> None:
        while True:
            for change in await self._plan():
                logger.info("{}", change.reason)
                try:
                    told = await self._with_event(change, term)
                    await commit_changes(committer, self._replica, (told,))
                except LeaseLost:
                    self._lease.forget()
            await self._clock.sleep(PERIOD_S if self._replica.machine.cluster is not None else UNNAMED_PERIOD_S)

    async def _plan(self) -> tuple[Change, ...]:
        view, now_ms = self._replica.machine, self._clock.wall_ms()
        if not view.authorities:
            return await self._plan_founding()
        steps = plan_rotation(view, now_ms)
        worn = outworn(view, now_ms)
        if worn and not steps and not is_key_rotating(view):
            try:
                steps = (plan_rotation_start(view, build_next_authorities(self._issuer, view, worn, now_ms)),)
            except Unavailable as error:
                logger.warning("a CA runs out within a year and cannot be replaced: {}", error)
        return (
            *(steps or await self._plan_key_step(view, now_ms)),
            *plan_disowned_tokens(view, now_ms),
            *plan_token_reap(view, now_ms),
            *plan_identity_reap(view, now_ms),
        )

    async def _plan_key_step(self, view: View, now_ms: int) -> tuple[Change, ...]:
        rotation, held, now_s = find_key_rotation(view), self._issuer.key_names(), self._clock.monotonic_s()
        if rotation is None or not rotation.key or rotation.key in held:
            self._key_found_at_s = now_s
        missing_s = now_s - self._key_found_at_s
        step = decide_key_step(view, self._own_id, held, self._voters(), now_ms, missing_s)
        try:
            if step is KeyStep.MAKE:
                if self._made is None or self._made[0] != rotation:
                    self._made = rotation, ClusterKey.new()
                key = self._made[1]
                await self._issuer.add_key(key)  # on disk before anybody hears of it
                return (plan_announcement(view, key.name, now_ms),)
            if step is KeyStep.RESEAL and rotation is not None:
                return (self._plan_resealing(view, rotation.key, now_ms),)
        except (BadCredentials, Unavailable, OSError) as error:
            logger.warning("the cluster key is not replaced: {}", error)
        return ()

    def _plan_resealing(self, view: View, name: str, now_ms: int) -> Change:
        holdings, key = self._issuer.get_holdings(), self._issuer.find_key(name)
        assert key is not None, "decided only where it is held"
        records = [held.record for _, held in sorted(view.authorities.items())]
        return plan_resealing(view, [reseal_authority(holdings.open(record), key) for record in records], name, now_ms)

    async def _plan_founding(self) -> tuple[Change, ...]:
        cluster = self._replica.machine.cluster
        if cluster is None:
            return ()  # the namer goes first
        try:
            holdings = await self._issuer.found(cluster.id)
        except (BadCredentials, OSError) as error:
            logger.error("no certificate authority can be founded: {}", error)
            return ()
        if holdings.cluster_id != cluster.id:
            logger.error("this data directory holds the keys of cluster {}, not of this one", holdings.cluster_id)
            return ()
        change = plan_bootstrap(self._replica.machine, ClusterRecord(id=holdings.cluster_id), holdings.records)
        return (change,) if change is not None else ()

    async def _with_event(self, change: Change, term: int) -> Change:
        at_ms = self._clock.wall_ms()
        record = EventRecord(
            id=f"{at_ms:013d}-{self._ids.new()[:8]}",
            at_ms=at_ms,
            kind="TrustChanged",
            subject="cluster/pki",
            message=change.reason,
            source=self._own_id,
            term=term,
        )
        try:
            lease_id = await self._lease.current()
        except Unavailable:
            return change  # an event informs: for want of a lease no step is left out
        return replace(change, puts=(*change.puts, PutRecord(keys.event(record.id), record, lease_id)))


def build_next_authorities(
    issuer: Issuer, view: View, purposes: list[AuthorityPurpose], now_ms: int, leaf_lifetime_s: int = 0
) -> list[AuthorityRecord]:
    """Return new authorities to replace those of `purposes`. Raises Unavailable without a cluster key, Conflict."""
    key, made = issuer.get_cluster_key(), []
    for purpose in purposes:
        held = authorities_of(view, purpose)
        lifetime_s = leaf_lifetime_s or (held[-1].record.leaf_lifetime_s if held else 0)
        authority = new_authority(
            purpose,
            issuer.cluster_id,
            key,
            now_ms,
            generation=next_generation(view, purpose),
            phase=AuthorityPhase.DISTRIBUTING,
            **({"leaf_lifetime_s": lifetime_s} if lifetime_s else {}),
        )
        made.append(authority.record)
    return made
