"""Turns for what only one coordinator may do at a time, and nobody has to lead: restarting its member of etcd.

Everybody hears of a new authority at the same moment and must restart some time. The wall clock, which certificates
need in step anyway, gives each coordinator a turn, in the order of ids. A turn is begun early or not at all, so that
what was begun in it has ended when the next one begins, though clocks differ a little.
"""

from __future__ import annotations

from collections.abc import Iterable

TURN_S = 10.0
BEGIN_S = 2.0
"""How much of a turn may have passed when something is begun in it."""


def until_turn_s(own_id: str, ids: Iterable[str], now_s: float) -> float:
    """Return the seconds until `own_id` may begin, 0 if it may now. `now_s`: seconds since 1970.

    All that ask must name the same ids.
    """
    order = sorted({own_id, *ids})
    since_s = (now_s - order.index(own_id) * TURN_S) % (len(order) * TURN_S)
    return 0.0 if since_s < BEGIN_S else len(order) * TURN_S - since_s
