"""Answer DNS from this coordinator's own state, as long as that is fresh enough.

Any coordinator answers, whether it leads or not. One whose state is older than the bound says SERVFAIL, so that a
resolver asks the next: an address that may long belong to somebody else is worse than none. An asker is taken to be on
the node whose agent is reached at the asker's address, if there is exactly one such node.
"""

from __future__ import annotations

from collections.abc import Callable

from cloudless.adapters.dns.wire import Terms, respond
from cloudless.coordinator.replica import Replica
from cloudless.core.discovery.addresses import split_address
from cloudless.core.keys import Kind
from cloudless.core.naming import Asker, Question, Reply, Zone, answer
from cloudless.core.state import Applied, View
from cloudless.errors import Unavailable


class NameAnswers:
    """The answers of one coordinator. `find_replica` returns None while it has no state."""

    def __init__(self, find_replica: Callable[[], Replica | None], domain: str, ttl_s: int, stale_max_s: float) -> None:
        self._find_replica, self._stale_max_s = find_replica, stale_max_s
        self._zone, self._terms = Zone(domain), Terms(domain, ttl_s)
        self._followed: Replica | None = None
        self._nodes_at: dict[str, str] | None = None

    def respond(self, raw: bytes, client: str, datagram: bool) -> bytes | None:
        """Return the answer to a question of a client at an address; None: none."""
        return respond(raw, lambda question: self._answer(question, client), self._terms, datagram=datagram)

    def _answer(self, question: Question, client: str) -> Reply:
        replica = self._find_replica()
        if replica is None or not replica.loaded.is_set():
            raise Unavailable("this coordinator holds no state yet")
        if replica.staleness_s > self._stale_max_s:
            raise Unavailable(f"this coordinator's state is {replica.staleness_s:.0f} s old")
        return answer(replica.machine, self._zone, question, Asker(self._node_at(replica, client), client))

    def _node_at(self, replica: Replica, client: str) -> str:
        """Return the node at an address, "" for none or several."""
        if self._followed is not replica:
            self._followed, self._nodes_at = replica, None
            replica.listen(self._on_applied)
        if self._nodes_at is None:
            self._nodes_at = _nodes_by_host(replica.machine)
        return self._nodes_at.get(client, "")

    def _on_applied(self, applied: Applied) -> None:
        if any(transition.kind is Kind.NODE_INFO for transition in applied.transitions):
            self._nodes_at = None


def _nodes_by_host(view: View) -> dict[str, str]:
    found: dict[str, str] = {}
    for node_id, node in view.nodes.items():
        if node.info is None or not node.info.address:
            continue
        try:
            host = split_address(node.info.address)[0]
        except ValueError:  # of an agent that says something else than it should
            continue
        found[host] = "" if host in found else node_id
    return found
