"""When each node was last heard of, by any coordinator.

Every coordinator keeps this table for all nodes: its own sessions write into it directly, the links
between coordinators bring the others' news. So a new leader knows at once who lives. In memory only; a
node's status is written when it changes, a heartbeat never.
"""

from __future__ import annotations

from collections.abc import Mapping

from cloudless.ports import Clock

NODES_MAX = 50_000
"""Bounds the table against callers that make names up."""
TOLD_MAX = 64


class HeardTable:
    """Monotonic times of the newest sign of life, by node id."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard_s: dict[str, float] = {}
        self._news: dict[str, float] = {}
        self._told_s: dict[str, float] = {}
        self._since_s = clock.monotonic_s()

    def hear(self, node_id: str, *, age_s: float = 0.0, own: bool) -> None:
        """Note a sign of life `age_s` old; `own` ones are news for the other coordinators."""
        at_s = self._clock.monotonic_s() - max(0.0, age_s)
        if node_id not in self._heard_s and len(self._heard_s) >= NODES_MAX:
            return
        if at_s > self._heard_s.get(node_id, float("-inf")):
            self._heard_s[node_id] = at_s
            if own:
                self._news.pop(node_id, None)  # to the end: they are kept in the order of time
                self._news[node_id] = at_s

    def silent_s(self) -> Mapping[str, float]:
        """Return the seconds since each known node was last heard of."""
        now_s = self._clock.monotonic_s()
        return {node_id: now_s - at_s for node_id, at_s in self._heard_s.items()}

    def find_silence_s(self, node_id: str) -> float | None:
        at_s = self._heard_s.get(node_id)
        return None if at_s is None else self._clock.monotonic_s() - at_s

    def listening_s(self) -> float:
        """Return for how long this table has been listening."""
        return self._clock.monotonic_s() - self._since_s

    def take_news(self, to: str, within_s: float) -> Mapping[str, float]:
        """Return the age in seconds of own signs of life that `to` was not told of yet, at most `within_s` old.

        Each is told once: thousands of nodes would otherwise be listed again with every beat of every link. What is
        lost with a link is made up for by each node's next heartbeat.
        """
        now_s = self._clock.monotonic_s()
        since_s = max(self._told_s.get(to, float("-inf")), now_s - within_s)
        news: dict[str, float] = {}
        newest_s = since_s
        for node_id in reversed(self._news):  # newest first
            at_s = self._news[node_id]
            if at_s <= since_s:
                break
            news[node_id] = now_s - at_s
            newest_s = max(newest_s, at_s)
        if to in self._told_s or len(self._told_s) < TOLD_MAX:
            self._told_s[to] = newest_s
        return news

    def forget(self, node_id: str) -> None:
        self._heard_s.pop(node_id, None)
        self._news.pop(node_id, None)
