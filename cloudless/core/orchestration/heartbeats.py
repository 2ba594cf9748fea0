"""How often agents beat, and for how long one may be silent, in a cluster of so many nodes.

A coordinator that all agents come to, because the others are gone, takes `BEATS_PER_S_MAX` heartbeats a second at most:
beyond so many nodes the period grows with their number, and with it the silence that makes a node unreachable, which is
never less than three periods. All coordinators know the nodes from the state, so all say the same. Pure.
"""

from __future__ import annotations

BEATS_PER_S_MAX = 400
"""Each costs a coordinator about half a millisecond of its processor, with TLS, the answer and word to the others. A
thousand nodes beat every 2.5 s then, and one that falls silent is missed after 7.5 s."""
SILENT_PERIODS = 3


def heartbeat_period_s(nodes: int, least_s: float) -> float:
    """Return the seconds between two heartbeats of an agent, `least_s` in clusters that are not large."""
    return max(least_s, nodes / BEATS_PER_S_MAX)


def node_timeout_s(nodes: int, period_least_s: float, timeout_least_s: float) -> float:
    """Return for how many seconds a node is silent before it counts as unreachable."""
    return max(timeout_least_s, SILENT_PERIODS * heartbeat_period_s(nodes, period_least_s))
