"""The leader's care for the members: looks, lets the planner decide, does the one step, says what it waits for.

All decisions are made by `core.membership.planner`; what stands here is how it gets to know things and how a step is
done. Every step is one call to etcd or one fenced write, is harmless when repeated, and is decided anew from what is
there, so a leader that dies in the middle leaves nothing half done for the next one. Time is this leader's own: it
begins anew with each term.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from loguru import logger

from cloudless.adapters.etcd.admin import EtcdAdmin, MemberNotFound, MemberNotLearner, PeerUrlTaken
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.controllers import commit_changes, wait_for_any
from cloudless.coordinator.membership import REFRESH_PERIOD_S, Members
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.membership.chronicle import Chronicle, begin, follow
from cloudless.core.membership.founding import Standing
from cloudless.core.membership.observed import JoinView, MemberView, Observed, ReplacementView
from cloudless.core.membership.planner import MembershipDecision, MembershipStep, plan_membership
from cloudless.core.membership.records import (
    Asking,
    autopilot_of,
    autopilot_status_of,
    joins_of,
    replacements_of,
    revision_of,
)
from cloudless.core.model import AutopilotRecord, AutopilotStatus, AutopilotWait
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state import Applied
from cloudless.errors import CloudlessError, Fenced, LeaseLost
from cloudless.ports import Clock
from cloudless.rpc.v1 import cluster_pb2 as pb

BUSY_PERIOD_S = 0.3
ASK_TIMEOUT_S = 0.8
MOVE_REST_S = 30.0
DROPPED_MAX = 16
"""How many learners that gave way are remembered, for them to know that they may ask again."""

_WAKING = frozenset({Kind.JOIN, Kind.REPLACEMENT, Kind.AUTOPILOT})
_DONE = {
    MembershipStep.PROMOTE: "promoted to voter",
    MembershipStep.DROP_LEARNER: "removed as a learner",
    MembershipStep.REMOVE: "removed",
    MembershipStep.ADD_LEARNER: "added as a learner",
    MembershipStep.FORGET_JOIN: "no longer in the queue",
    MembershipStep.FORGET_REPLACEMENT: "no longer to be replaced",
    MembershipStep.MOVE_LEADER: "leads etcd",
}

_TRIED = {
    MembershipStep.PROMOTE: "promotion",
    MembershipStep.DROP_LEARNER: "removal",
    MembershipStep.REMOVE: "removal",
    MembershipStep.ADD_LEARNER: "admission as a learner",
    MembershipStep.FORGET_JOIN: "leaving the queue",
    MembershipStep.FORGET_REPLACEMENT: "end of the replacement",
    MembershipStep.MOVE_LEADER: "etcd's leadership",
}


class Ask(Protocol):
    """Asks coordinators, by address, what they are in the forming of a cluster; see `ask_formation`."""

    async def __call__(
        self, addresses: Iterable[str], *, timeout_s: float = ...
    ) -> Mapping[str, pb.GetFormationResponse]: ...


class Autopilot:
    """The controller of the members; one for all terms of a coordinator."""

    def __init__(self, members: Members, admin: EtcdAdmin, replica: Replica, clock: Clock, *, ask: Ask) -> None:
        self._members, self._admin, self._replica, self._clock = members, admin, replica, clock
        self._ask = ask
        self._past: Chronicle = begin(0.0)
        self._rests_until_s: dict[int, float] = {}
        self._done = ""
        self._hindered = ""
        self.seen: tuple[MemberView, ...] = ()
        self._dropped: deque[int] = deque(maxlen=DROPPED_MAX)
        self._wake = asyncio.Event()

    async def run(self, term: int, committer: Committer) -> None:
        self._past = begin(self._clock.monotonic_s())
        told = autopilot_status_of(self._replica.machine)
        self._done = told.doing
        self._dropped.extend(told.dropped_member_ids)
        stop_listening = self._replica.listen(self._on_applied)
        try:
            while True:
                self._wake.clear()
                pause_s = BUSY_PERIOD_S
                try:
                    pause_s = await self._look(term, committer)
                except (Fenced, LeaseLost):
                    raise
                except CloudlessError as error:
                    logger.debug("membership step put off: {}", error)
                await wait_for_any(self._wake, pause_s)
        finally:
            stop_listening()

    def _on_applied(self, applied: Applied) -> None:
        if any(transition.kind in _WAKING for transition in applied.transitions):
            self._wake.set()

    async def _look(self, term: int, committer: Committer) -> float:
        """Do the one step that is due; return the seconds until the next look."""
        await self._members.refresh()
        wanted = autopilot_of(self._replica.machine)
        seen = await self._observe()
        self.seen = seen.members
        self._past = follow(self._past, seen, wanted.catch_up_lag_max, self._clock.monotonic_s())
        decision = plan_membership(seen, wanted, self._past)
        if decision.step is not MembershipStep.WAIT:
            decision = await self._try(decision, committer)
        await self._tell(term, committer, decision)
        busy = decision.step is not MembershipStep.WAIT or self._has_news_soon(seen, wanted)
        return BUSY_PERIOD_S if busy else REFRESH_PERIOD_S

    # --- seeing ---

    async def _observe(self) -> Observed:
        machine, status = self._replica.machine, self._members.status
        assert status is not None
        asking = joins_of(machine)
        said = await self._ask(sorted({join.record.api_address for join in asking.values()}), timeout_s=ASK_TIMEOUT_S)
        now_s = self._clock.monotonic_s()
        joins = tuple(_to_join(join, said.get(join.record.api_address)) for join in asking.values())
        views = tuple(self._with_progress(view, asking, said, status.raft_index) for view in self._members.views())
        return Observed(
            members=views,
            own_member_id=status.member_id,
            raft_leader_id=status.leader_id,
            raft_index=status.raft_index,
            joins=joins,
            replacements=tuple(
                ReplacementView(r.record.id, r.record.member_id, r.record.new_id, r.record.voters)
                for r in replacements_of(machine).values()
            ),
            resting=frozenset(id for id, until_s in self._rests_until_s.items() if until_s > now_s),
        )

    @staticmethod
    def _with_progress(
        view: MemberView, asking: Mapping[str, Asking], said: Mapping[str, pb.GetFormationResponse], raft_index: int
    ) -> MemberView:
        """A learner has no link to us yet: it is asked how far it has got. One that nobody knows is left to etcd."""
        if not view.learner or not view.started:
            return view
        join = asking.get(view.name)
        if join is None:
            return replace(view, linked=True, raft_index=raft_index)
        answer = said.get(join.record.api_address)
        if answer is None or answer.node_id != view.name or answer.member_id not in (0, view.id):
            return view
        return replace(view, linked=True, raft_index=answer.raft_index)

    def _has_news_soon(self, seen: Observed, wanted: AutopilotRecord) -> bool:
        """Return whether a learner is on its way: then it is worth looking often."""
        now_s = self._past.looked_s
        for learner in seen.learners:
            past = self._past.members[learner.id]
            if past.in_sync_since_s is None or now_s - past.in_sync_since_s < wanted.catch_up_stable_s + 1.0:
                return True
        return False

    # --- doing ---

    async def _try(self, decision: MembershipDecision, committer: Committer) -> MembershipDecision:
        """Do a step; return the decision, or the reason to wait if it is refused."""
        try:
            await self._do(decision, committer)
        except (Fenced, LeaseLost):
            raise
        except CloudlessError as error:
            why = f"{_TRIED[decision.step]} put off: {error.message.partition(': ')[2] or error.message}"
            if why != self._hindered:
                logger.info("members: {member}: {} ({})", why, error.hint, member=decision.node_id)
            self._hindered = why
            return replace(decision, waits=(*decision.waits, AutopilotWait(decision.node_id, why)))
        self._hindered = ""
        done = f"{decision.node_id} {_DONE[decision.step]}: {decision.reason}"
        logger.info("members: {}", done)
        self._done = done
        return decision

    async def _do(self, decision: MembershipDecision, committer: Committer) -> None:
        match decision.step:
            case MembershipStep.PROMOTE:
                await self._promote(decision.member_id)
            case MembershipStep.MOVE_LEADER:
                await self._move_leader(decision.member_id)
            case MembershipStep.DROP_LEARNER:
                await self._remove(decision.member_id)
                self._dropped.append(decision.member_id)
                # Its place in the queue, too: asking again it is the last, or it would hold the others up for ever.
                await self._forget(keys.join(decision.node_id), decision.reason, committer)
            case MembershipStep.REMOVE:
                await self._remove(decision.member_id)
            case MembershipStep.ADD_LEARNER:
                await self._add(decision.node_id)
            case MembershipStep.FORGET_JOIN:
                await self._forget(keys.join(decision.node_id), decision.reason, committer)
            case MembershipStep.FORGET_REPLACEMENT:
                await self._forget(keys.replacement(decision.node_id), decision.reason, committer)

    async def _promote(self, member_id: int) -> None:
        try:
            await self._admin.promote(member_id)
        except MemberNotLearner:  # an earlier try whose answer was lost
            return

    async def _remove(self, member_id: int) -> None:
        try:
            await self._admin.remove(member_id)
        except MemberNotFound:
            return

    async def _add(self, node_id: str) -> None:
        record = joins_of(self._replica.machine)[node_id].record
        try:
            await self._admin.add_learner([self._members.own.etcd_url(record.raft_address)])
        except PeerUrlTaken:  # an earlier try whose answer was lost
            return

    async def _move_leader(self, member_id: int) -> None:
        # While a transfer is tried etcd takes no writes: one that fails must not be tried again at once.
        self._rests_until_s[member_id] = self._clock.monotonic_s() + MOVE_REST_S
        await self._admin.move_leader(member_id)
        del self._rests_until_s[member_id]

    async def _forget(self, key: str, reason: str, committer: Committer) -> None:
        revision = revision_of(self._replica.machine, key)
        if revision:
            change = Change(deletes=(key,), preconditions=(Precondition(key, revision),), reason=reason)
            await commit_changes(committer, self._replica, (change,))

    # --- telling ---

    async def _tell(self, term: int, committer: Committer, decision: MembershipDecision) -> None:
        """Write down what was done last and what is waited for, if that is news."""
        told = autopilot_status_of(self._replica.machine)
        status = AutopilotStatus(
            term=term, doing=self._done, waits=decision.waits, since_ms=told.since_ms,
            dropped_member_ids=tuple(self._dropped),
        )  # fmt: skip
        if replace(status, term=told.term) == told:
            return
        status = replace(status, since_ms=self._clock.wall_ms())
        key = keys.AUTOPILOT_STATUS
        change = Change(
            puts=(PutRecord(key, status),),
            preconditions=(Precondition(key, revision_of(self._replica.machine, key)),),
            reason="what the autopilot waits for",
        )
        await commit_changes(committer, self._replica, (change,))


def _to_join(asking: Asking, answer: pb.GetFormationResponse | None) -> JoinView:
    record = asking.record
    answers = answer is not None and answer.node_id == record.id and answer.phase != Standing.MEMBER.value
    return JoinView(
        record.id,
        record.raft_address,
        asking.create_revision,
        answers,
        record.api_address,
        member_id=answer.member_id if answer is not None and answers else 0,
    )
