"""The leader's controllers: each waits for a change or a deadline, looks at the state, plans, commits.

All decisions are made by planners of `cloudless.core`; what stands here is only when to ask them and what
to do with the answer. A plan is never made from a view older than the last one's own writes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from loguru import logger

from cloudless.coordinator.commit import Committer, PreconditionFailed
from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.model import ClusterRecord, NodeStatus
from cloudless.core.orchestration import plan_liveness
from cloudless.core.orchestration.heartbeats import node_timeout_s
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.errors import CloudlessError, CommitUncertain, Fenced, LeaseLost, Unavailable
from cloudless.ports import Clock, Ids

COMMIT_TIMEOUT_S = 5.0
SEEN_TIMEOUT_S = 5.0
SEEN_TRIES = 3


async def commit_changes(committer: Committer, replica: Replica, changes: Sequence[Change]) -> int:
    """Commit independent changes together and wait until the own state shows them; return how many were refused.

    A change whose objects moved meanwhile is left to the next plan; so is one whose outcome is uncertain or that
    the store refuses, for one refused change must not cost the term. Raises Fenced and LeaseLost.
    """
    results = await committer.commit_all(changes, timeout_s=COMMIT_TIMEOUT_S)
    newest, refused, uncertain = 0, 0, False
    for result in results:
        if isinstance(result, PreconditionFailed):
            newest, refused = max(newest, result.revision), refused + 1
        elif isinstance(result, (Fenced, LeaseLost)):
            raise result
        elif isinstance(result, CloudlessError):
            logger.debug("not committed: {}", result)
            refused += 1
            uncertain |= isinstance(result, CommitUncertain)
        else:
            newest = max(newest, result.revision)
    await _see(replica, newest, uncertain)
    return refused


async def _see(replica: Replica, revision: int, uncertain: bool) -> None:
    """Return once the state shows `revision` and, after an uncertain outcome, everything written so far.

    A plan from an older view would decide the same things a second time. Raises Unavailable, which ends the term,
    if the state does not catch up: another coordinator's may.
    """
    for tries_left in reversed(range(SEEN_TRIES)):
        try:
            await replica.wait_for(revision, timeout_s=SEEN_TIMEOUT_S)
            if uncertain:
                await replica.linearize(timeout_s=SEEN_TIMEOUT_S)
            return
        except Unavailable as error:
            logger.debug("waiting for the own state to catch up: {}", error)
            if not tries_left:
                raise


async def wait_for_any(event: asyncio.Event, timeout_s: float | None) -> None:
    """Return when `event` is set or `timeout_s` (None: never) has passed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


class Controller(Protocol):
    """What the leader runs for the length of a term."""

    async def run(self, term: int, committer: Committer) -> None: ...


class LivenessController:
    """Writes which nodes are reachable, when that changes.

    Silence counts from when this leader began to listen, and anew after this process itself was frozen: a
    coordinator that was stopped for a while must not take its own sleep for the death of every node.
    """

    PERIOD_S = 0.2
    FROZEN_AFTER_S = 1.0
    # An agent that lost its last coordinator tries again within its longest pause (2 s) and time to connect (1.5 s).
    RETURN_GRACE_S = 3.5

    def __init__(
        self, replica: Replica, heard: HeardTable, clock: Clock, timeout_s: float, period_s: float = 1.0
    ) -> None:
        """`timeout_s`, `period_s`: the least silence and heartbeat period; in large clusters both are longer."""
        self._replica, self._heard, self._clock = replica, heard, clock
        self._timeout_s, self._period_s = timeout_s, period_s

    async def run(self, term: int, committer: Committer) -> None:
        began_s = looked_s = self._clock.monotonic_s()
        while True:
            now_s = self._clock.monotonic_s()
            if now_s - looked_s > self.FROZEN_AFTER_S + self.PERIOD_S:
                began_s = now_s
            looked_s = now_s
            timeout_s = node_timeout_s(len(self._replica.machine.nodes), self._period_s, self._timeout_s)
            listening_s = max(0.0, now_s - began_s - self.RETURN_GRACE_S)
            known = self._heard.silent_s().items()
            counts = {node: silent for node, silent in known if silent < max(timeout_s, listening_s)}
            plan = plan_liveness(self._replica.machine, counts, self._clock.wall_ms(), term, timeout_s, listening_s)
            if plan.changes:
                for change in plan.changes:
                    _log_status(change)
                await commit_changes(committer, self._replica, plan.changes)  # if that takes long, it counts as frozen
            await self._clock.sleep(self.PERIOD_S)


def _log_status(change: Change) -> None:
    for put in change.puts:
        if isinstance(put.record, NodeStatus):
            parsed = keys.parse(put.key)
            node, status = parsed.parts[0] if parsed else put.key, put.record
            logger.info("node {node} is {}: {}", status.reachability.value, status.reason, node=node)


class ClusterNamer:
    """Gives the cluster its name, once: the first leader's first act.

    `find_given` returns the name that the cluster's certificates have already, "" if there are none yet. The cluster
    begins at `level`, the feature level of the leader's own version.
    """

    RETRY_PAUSE_S = 0.2

    def __init__(
        self,
        own_id: str,
        replica: Replica,
        clock: Clock,
        ids: Ids,
        find_given: Callable[[], str] = lambda: "",
        level: str = "",
    ) -> None:
        self._own_id, self._replica, self._clock, self._ids = own_id, replica, clock, ids
        self._find_given, self._level = find_given, level

    async def run(self, term: int, committer: Committer) -> None:
        while self._replica.machine.cluster is None and keys.CLUSTER not in self._replica.machine.quarantined:
            cluster_id = self._find_given() or self._ids.new()
            record = ClusterRecord(
                id=cluster_id,
                created_at_ms=self._clock.wall_ms(),
                created_by=self._own_id,
                feature_level=self._level,
            )
            change = Change(
                puts=(PutRecord(keys.CLUSTER, record),),
                preconditions=(Precondition(keys.CLUSTER, 0),),
                reason=f"name the cluster {record.id}",
            )
            if await commit_changes(committer, self._replica, (change,)):
                await self._clock.sleep(self.RETRY_PAUSE_S)
