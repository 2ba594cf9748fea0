"""One trace for each change of the leader, told afterwards by the new one: what took how long.

    loss noticed ──► key gone ──► elected ──► barrier passed ──► controllers running
            └ "depose" ┘  └ "elect" ┘   └ "barrier" ┘   └ "start controllers" ┘

Every coordinator notes the times; only who comes to lead tells of them. A leader that hands over is not lost: then the
trace begins when its key went. A cluster's first leader follows nobody, and tells nothing. Recorded whatever the ratio:
these are rare, and what people ask about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudless.core.state import Candidate
from cloudless.observability import tracing


@dataclass(slots=True)
class _Times:
    """Of the end of one term, by the wall clock of traces; None while it has not come to that."""

    term: int
    leader_id: str
    noticed_ns: int | None = None
    gone_ns: int | None = None


class FailoverTrace:
    """Notes what one coordinator sees of a term's end. All of it costs nothing while tracing is off."""

    def __init__(self) -> None:
        self._leader: Candidate | None = None
        self._past: _Times | None = None
        self._steps: list[tuple[str, int]] = []

    def doubted(self, leader: Candidate) -> None:
        """The leader's link is lost: the first time in its term counts."""
        now_ns = tracing.now_ns()
        if now_ns is not None and (self._past is None or self._past.term != leader.term):
            self._past = _Times(leader.term, leader.record.coordinator_id, noticed_ns=now_ns)

    def seen(self, queue: Sequence[Candidate]) -> None:
        """The election's queue is this now."""
        first = queue[0] if queue else None
        if self._leader is not None and (first is None or first.term != self._leader.term):
            self._gone(self._leader)
        self._leader = first

    def _gone(self, leader: Candidate) -> None:
        now_ns = tracing.now_ns()
        if now_ns is None:
            return
        if self._past is None or self._past.term != leader.term:
            self._past = _Times(leader.term, leader.record.coordinator_id)
        self._past.gone_ns = now_ns

    def step(self, name: str) -> None:
        """This coordinator, first in the queue, has come so far on its way into office: elected, barrier, running."""
        now_ns = tracing.now_ns()
        if now_ns is None:
            return
        if name == "elected":
            self._steps.clear()
        self._steps.append((name, now_ns))

    def tell(self, term: int, own_id: str) -> None:
        """The controllers of `term` run here: record the trace, if a leader went before."""
        past, steps = self._past, dict(self._steps)
        self._past = None
        self._steps.clear()
        if past is None or past.gone_ns is None or not {"elected", "barrier", "running"} <= steps.keys():
            return
        began_ns = past.noticed_ns or past.gone_ns
        whole = tracing.span(
            "failover",
            {
                "cloudless.term": term,
                "cloudless.leader": own_id,
                "cloudless.term_before": past.term,
                "cloudless.leader_before": past.leader_id,
                "cloudless.lost": past.noticed_ns is not None,
            },
            parent=tracing.NEW,
            start_ns=began_ns,
            always=True,
        )
        parts = (
            ("depose", began_ns, past.gone_ns),
            ("elect", past.gone_ns, steps["elected"]),
            ("barrier", steps["elected"], steps["barrier"]),
            ("start controllers", steps["barrier"], steps["running"]),
        )
        for name, start_ns, end_ns in parts:
            tracing.going_on(whole.traceparent, name, start_ns=start_ns).end(max(start_ns, end_ns))
        whole.end(max(began_ns, steps["running"]))
