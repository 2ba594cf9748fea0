"""One coordinator's part in the election: observes, asks `core.election` what to do, does it.

While it holds office, exactly one *leader scope* runs (`lead(term, committer)`): one TaskGroup in which
all controllers live. The scope is cancelled and awaited before the key is given up; a controller that
dies ends the scope and the term. Every write of the scope goes through a committer fenced by the term.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loguru import logger

from cloudless.coordinator.commit import Committer, Fence
from cloudless.coordinator.commit_figures import CommitFigures
from cloudless.coordinator.failover_trace import FailoverTrace
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.election import Decision, HeldLease, Observation, Role, Step, decide, role_of
from cloudless.core.model import LeaderRecord
from cloudless.core.state import Applied, Candidate
from cloudless.errors import CloudlessError, Fenced, LeaseLost, Unavailable
from cloudless.observability.fields import bind
from cloudless.ports import Clock, Compare, Delete, Get, Put, Relation, Store, Target, Txn
from cloudless.rpc.codec import encode_record

Lead = Callable[[int, Committer], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class LeadershipSettings:
    """`lease_ttl_s`: how long a dead leader's key stays when no majority deposes it; at least 1.5 election
    timeouts of etcd. `renew_period_s`: between renewals. `step_timeout_s`: for one call to the store.
    `renewal_staleness_max_s`: cut off from the store for longer, a coordinator lets its lease end."""

    lease_ttl_s: int = 4
    renew_period_s: float = 0.5
    step_timeout_s: float = 1.5
    retry_pause_s: float = 0.1
    barrier_timeout_s: float = 5.0
    renewal_staleness_max_s: float = 3.0


class Leadership:
    """Runs the election for coordinator `own_id`.

    `on_lease` is told each lease it gets, to register under it; again until it succeeds, before it stands for election.
    `figures` count what the committers of all its terms do.
    """

    def __init__(
        self,
        own_id: str,
        store: Store,
        replica: Replica,
        clock: Clock,
        lead: Lead,
        *,
        on_lease: Callable[[int], Awaitable[None]],
        settings: LeadershipSettings | None = None,
        figures: CommitFigures | None = None,
        failover: FailoverTrace | None = None,
    ) -> None:
        self._own_id, self._store, self._replica, self._clock, self._lead = own_id, store, replica, clock, lead
        self._on_lease, self._failover = on_lease, failover or FailoverTrace()
        self._settings = settings or LeadershipSettings()
        self._lease: HeldLease | None = None
        self._registered_lease_id = 0
        self._campaigned_revision = 0
        self._leading_term = 0
        self._scope: asyncio.Task[None] | None = None
        self._stopping = False
        self._wake = asyncio.Event()
        self.stopped = asyncio.Event()
        self.figures = figures or CommitFigures()
        self.terms_won_total = 0
        self.leader_changes_total = 0
        self._term_seen = 0

    # --- for everyone else ---

    @property
    def leading_term(self) -> int:
        """The term this coordinator acts for, 0 while it does not lead or is not sure of it."""
        sure = self._lease is not None and self._lease.is_sure(self._clock.monotonic_s())
        return self._leading_term if sure else 0

    @property
    def role(self) -> Role:
        return role_of(self._observe())

    @property
    def lease_id(self) -> int:
        """The session's lease, 0 if there is none at the moment."""
        return self._lease.id if self._lease else 0

    def leader(self) -> Candidate | None:
        """Return the leader as this coordinator's state shows it."""
        queue = self._replica.machine.candidates()
        return queue[0] if queue else None

    def stop(self) -> None:
        """Leave office and the queue; `stopped` is set when both are done."""
        self._stopping = True
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    async def transfer(self, to_coordinator_id: str, *, timeout_s: float) -> None:
        """Make `to_coordinator_id` ("": whoever is next) first in the queue; any coordinator may do it.

        Deletes the keys before the chosen one in one transaction; their owners queue again, and the fence ends
        the old term at once. Raises Unavailable if the chosen one does not stand for election.
        """
        queue = self._replica.machine.candidates()
        others = [candidate.record.coordinator_id for candidate in queue]
        target = others.index(to_coordinator_id) if to_coordinator_id in others else (0 if to_coordinator_id else 1)
        if not 0 < target < len(queue):
            raise Unavailable(f"{to_coordinator_id or 'no other coordinator'} does not stand for election")
        leaving = queue[:target]
        compares = tuple(Compare(c.key, Target.CREATE, Relation.EQUAL, c.term) for c in queue[: target + 1])
        result = await self._store.txn(
            Txn(compares=compares, then=tuple(Delete(candidate.key) for candidate in leaving)), timeout_s=timeout_s
        )
        if not result.succeeded:
            raise Unavailable("the election moved on meanwhile", hint="look at the leader and try again")

    # --- the loop ---

    async def run(self) -> None:
        """Take part until `stop` and the hand-over that follows it."""
        ended = self._replica.listen(self._on_applied)
        try:
            await self._loaded_or_stopping()
            async with asyncio.TaskGroup() as group:
                renewal = group.create_task(self._renew(), name="lease-renewal")
                await self._decide_until_resigned()
                renewal.cancel()
        finally:
            ended()
            await self._end_scope()
            self.stopped.set()

    async def _loaded_or_stopping(self) -> None:
        while not (self._replica.loaded.is_set() or self._stopping):
            await self._wake.wait()
            self._wake.clear()

    def _on_applied(self, applied: Applied) -> None:
        told = any(transition.key.startswith(keys.ELECTION) for transition in applied.transitions)
        if (leader := self.leader() if told else None) is not None and leader.term != self._term_seen:
            self._term_seen = leader.term
            self.leader_changes_total += 1
        if told:
            self._failover.seen(self._replica.machine.candidates())
        if told or self._lease is None:  # without a lease: the state may just have been loaded
            self._wake.set()

    async def _decide_until_resigned(self) -> None:
        while True:
            self._wake.clear()
            decision = decide(self._observe())
            if decision.step is Step.WAIT:
                await self._wait(decision.until_s)
                continue
            try:
                if await self._perform(decision):
                    return
            except CloudlessError as error:
                logger.debug("election step {} failed: {}", decision.step.value, error)
                if self._stopping and decision.step is Step.RESIGN:
                    return
                await self._clock.sleep(self._settings.retry_pause_s)

    async def _wait(self, until_s: float) -> None:
        left_s = until_s - self._clock.monotonic_s()
        try:
            async with asyncio.timeout(max(0.0, left_s) if left_s != float("inf") else None):
                await self._wake.wait()
        except TimeoutError:
            return

    def _observe(self) -> Observation:
        machine = self._replica.machine
        return Observation(
            now_s=self._clock.monotonic_s(),
            lease=self._lease,
            own_key=keys.election(self._lease.id) if self._lease else "",
            queue=machine.candidates(),
            revision=machine.revision,
            campaigned_revision=self._campaigned_revision,
            leading_term=self._leading_term,
            stopping=self._stopping,
        )

    async def _perform(self, decision: Decision) -> bool:
        """Do one step; return whether it was the last."""
        match decision.step:
            case Step.GRANT_LEASE:
                await self._grant()
            case Step.DROP_LEASE:
                logger.warning("session lease given up: {}", decision.reason)
                self._forget_lease(self.lease_id)
            case Step.CAMPAIGN:
                await self._campaign()
            case Step.TAKE_OFFICE:
                await self._take_office(decision.term)
            case Step.LEAVE_OFFICE:
                logger.info("leaving office of term {term}: {}", decision.reason, term=self._leading_term)
                await self._end_scope()
            case Step.RESIGN:
                await self._resign()
                return True
            case Step.WAIT:
                pass
        return False

    async def _grant(self) -> None:
        sent_s = self._clock.monotonic_s()
        lease = await self._store.grant(self._settings.lease_ttl_s, timeout_s=self._settings.step_timeout_s)
        self._lease = HeldLease(lease.id, float(lease.ttl_s), sent_s)
        self._campaigned_revision = 0

    def _forget_lease(self, lease_id: int) -> None:
        if self.lease_id == lease_id:
            self._lease = None
            self._campaigned_revision = 0
            self._wake.set()

    def _remnants(self, own_key: str) -> list[str]:
        """Return keys of this coordinator's earlier leases: nobody doubts them, yet nobody leads by them."""
        queue = self._replica.machine.candidates()
        return [c.key for c in queue if c.record.coordinator_id == self._own_id and c.key != own_key]

    async def _campaign(self) -> None:
        """Queue our key unless it stands there already; after a lost answer the second try finds it."""
        lease = self._lease
        assert lease is not None
        key = keys.election(lease.id)
        record = LeaderRecord(coordinator_id=self._own_id, campaigned_at_ms=self._clock.wall_ms())
        txn = Txn(
            compares=(Compare(key, Target.CREATE, Relation.EQUAL, 0),),
            then=(Put(key, encode_record(record), lease.id), *(Delete(remnant) for remnant in self._remnants(key))),
            orelse=(Get(key),),
        )
        try:
            if self._registered_lease_id != lease.id:
                await self._on_lease(lease.id)
                self._registered_lease_id = lease.id
            result = await self._store.txn(txn, timeout_s=self._settings.step_timeout_s)
        except LeaseLost:
            self._forget_lease(lease.id)
            return
        if self._lease is not None and self._lease.id == lease.id:  # it may have been lost meanwhile
            self._campaigned_revision = result.revision

    async def _take_office(self, term: int) -> None:
        """Confirm the win by a fenced read, wait until our state is complete (the barrier), then act."""
        assert self._lease is not None
        self._failover.step("elected")
        key = keys.election(self._lease.id)
        if self._scope is not None:  # one that ended by itself may still be giving up its key
            await asyncio.wait([self._scope])
        compare = Compare(key, Target.CREATE, Relation.EQUAL, term)
        # A transaction that writes nothing is still ordered by Raft only if it is a linearizable read, which it is.
        result = await self._store.txn(
            Txn(compares=(compare,), then=(Get(key),)), timeout_s=self._settings.step_timeout_s
        )
        await self._replica.wait_for(result.revision, timeout_s=self._settings.barrier_timeout_s)
        if not result.succeeded or self._stopping:
            return
        self._leading_term = term
        self.terms_won_total += 1
        self._failover.step("barrier")
        logger.info("leading: term {term} at revision {revision}", term=term, revision=result.revision)
        self._scope = asyncio.create_task(self._run_scope(term, Fence(key, term)), name=f"leader-scope-{term}")
        self._scope.add_done_callback(lambda _: self._wake.set())

    async def _run_scope(self, term: int, fence: Fence) -> None:
        bind(term=term)  # for all that the controllers say
        committer = Committer(self._store, self._clock, fence=fence, figures=self.figures)
        try:
            async with asyncio.TaskGroup() as group:
                committing = group.create_task(committer.run(), name="leader-commit")
                await self._lead(term, committer)
                committing.cancel()
        except BaseExceptionGroup as failure:
            fenced, bugs = failure.split(Fenced)
            if fenced is not None:
                logger.warning("term {term} has ended elsewhere", term=term)
            if bugs is not None:  # a controller's bug must cost the term, not the coordinator
                logger.opt(exception=bugs).error("the leader scope of term {term} failed", term=term)
                await self._clock.sleep(self._settings.retry_pause_s)
        finally:
            if self._leading_term == term:
                await self._give_up_key(fence)

    async def _give_up_key(self, fence: Fence) -> None:
        """The scope ended by itself: let another lead rather than start the same trouble again at once."""
        self._leading_term = 0
        compare = Compare(fence.key, Target.CREATE, Relation.EQUAL, fence.term)
        try:
            await self._store.txn(
                Txn(compares=(compare,), then=(Delete(fence.key),)), timeout_s=self._settings.step_timeout_s
            )
        except CloudlessError as error:
            logger.debug("leader key not deleted: {}", error)

    async def _end_scope(self) -> None:
        self._leading_term = 0
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.cancel()
            await asyncio.wait([scope])

    async def _resign(self) -> None:
        await self._end_scope()
        if self._lease is not None:
            await self._store.revoke(self._lease.id, timeout_s=self._settings.step_timeout_s)
            self._lease = None

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(self._settings.renew_period_s)
            lease = self._lease
            # A member whose disk hangs takes no write, yet etcd goes on renewing leases through it.
            if lease is None or self._replica.staleness_s > self._settings.renewal_staleness_max_s:
                continue
            sent_s = self._clock.monotonic_s()
            try:
                ttl_s = await self._store.keep_alive(lease.id, timeout_s=self._settings.step_timeout_s)
            except LeaseLost:
                if self.lease_id == lease.id:
                    logger.warning("the session lease is lost")
                    self._forget_lease(lease.id)
            except CloudlessError as error:
                logger.debug("lease renewal failed: {}", error)
            else:
                if self.lease_id == lease.id:
                    self._lease = HeldLease(lease.id, float(ttl_s), sent_s)
                    if not lease.is_sure(sent_s):
                        self._wake.set()
