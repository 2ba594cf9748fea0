"""Nodes: who is well is not called unreachable."""

from __future__ import annotations

from typing import Any

from cloudless.core.keys import Kind
from cloudless.core.model import NodeStatus, Reachability
from cloudless.testing.sim.checkers.checker import Checker
from cloudless.testing.sim.happenings import Disturbed, Soothed, Stored

QUIET_S = 8.0
"""A node timeout, an agent's longest way to another coordinator, and some."""

HARMLESS = frozenset({"jump-clock", "end-task", "lose-lease", "transfer", "break-watch", "lag"})
ONE_COORDINATOR = frozenset({"pause-coordinator", "crash-coordinator", "crash-at-commit", "stop-coordinator"})


class HealthyNodesStay(Checker):
    """While agents and network are well, and at most one coordinator is not, no node becomes unreachable.

    A coordinator that was frozen must not take its own sleep for the death of every node.
    """

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._began_s = world.loop.now_s
        self._active: dict[tuple[str, str], int] = {}
        self._last_s: dict[tuple[str, str], float] = {}

    def on_Disturbed(self, disturbed: Disturbed) -> None:
        key = (disturbed.kind, disturbed.who)
        self._last_s[key] = self.world.loop.now_s
        if disturbed.kind not in HARMLESS:
            self._active[key] = self._active.get(key, 0) + 1

    def on_Soothed(self, soothed: Soothed) -> None:
        key = (soothed.kind, soothed.who)
        self._last_s[key] = self.world.loop.now_s
        self._active[key] = self._active.get(key, 0) - 1

    def on_Stored(self, stored: Stored) -> None:
        for transition in stored.transitions:
            status = transition.after
            lost = isinstance(status, NodeStatus) and status.reachability is Reachability.UNREACHABLE
            if transition.kind is Kind.NODE_STATUS and lost and self._all_was_well():
                raise self.refuse(f"{transition.key}: {status.reason}; its agent was well all the time")

    def _all_was_well(self) -> bool:
        since_s = self.world.loop.now_s - QUIET_S
        if since_s < self._began_s:
            return False
        recent = {key for key, at_s in self._last_s.items() if at_s >= since_s}
        recent |= {key for key, count in self._active.items() if count > 0}
        harmful = {(kind, who) for kind, who in recent if kind not in HARMLESS}
        coordinators = {who for kind, who in harmful if kind in ONE_COORDINATOR}
        return all(kind in ONE_COORDINATOR for kind, _ in harmful) and len(coordinators) <= 1
