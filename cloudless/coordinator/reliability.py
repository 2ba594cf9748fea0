"""The leader's book of how its nodes behave; `core.orchestration.reliability` says what counts and what is written."""

from __future__ import annotations

from dataclasses import replace

from cloudless.coordinator.commit import Committer
from cloudless.coordinator.controllers import commit_changes
from cloudless.coordinator.replica import Replica
from cloudless.core.keys import Kind
from cloudless.core.orchestration.reliability import Blame, Standing, find_blame, plan_reliability
from cloudless.core.state import Applied
from cloudless.ports import Clock

WATCHED = (Kind.NODE_STATUS, Kind.NODE_INFO, Kind.TASK_OBSERVED)
BLAMES_MAX = 10_000
SEEN_MAX = 50_000
"""Bounds of what is kept between two looks, and of what counts only once."""


class ReliabilityKeeper:
    """Counts what is seen of nodes during a term, and writes what has changed much."""

    PERIOD_S = 5.0

    def __init__(self, replica: Replica, clock: Clock) -> None:
        self._replica, self._clock = replica, clock
        self._blames: list[Blame] = []
        self._seen: set[Blame] = set()

    async def run(self, term: int, committer: Committer) -> None:
        standings: dict[str, Standing] = {}
        self._blames, self._seen = [], set()
        stop_listening = self._replica.listen(self._on_applied)
        try:
            while True:
                blames, self._blames = self._blames, []
                now_s = self._clock.monotonic_s()
                plan = plan_reliability(self._replica.machine, standings, blames, now_s, term)
                standings = dict(plan.standings)
                if plan.changes and await commit_changes(committer, self._replica, plan.changes):
                    # One was overtaken by another change of its node: all may be written again.
                    standings = {id: replace(one, written_at_s=None) for id, one in standings.items()}
                await self._clock.sleep(self.PERIOD_S)
        finally:
            stop_listening()

    def _on_applied(self, applied: Applied) -> None:
        for transition in applied.transitions:
            if transition.kind not in WATCHED or len(self._blames) >= BLAMES_MAX:
                continue
            blame = find_blame(self._replica.machine, transition.key, transition.before, transition.after)
            if blame is None or blame in self._seen:
                continue
            if blame.about and len(self._seen) < SEEN_MAX:
                self._seen.add(blame)
            self._blames.append(blame)
