"""What a drill found: figures of each round, the faults they prove, and their distribution. Pure but for `show_report`.

A round that proved nothing (too little load before its fault, never healed) is a finding like a lost write is: the
drill fails rather than call silence a success.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from itertools import pairwise
from typing import Any

from cloudless.cli.options import Options

WRITES_BEFORE_FAULT_MIN = 20


class Kind(Enum):
    """What a round breaks.

    The leader coordinator and etcd's own leader are kept on different hosts, so each has its own kind; the
    second one stops all writes until etcd has elected anew.
    """

    KILL_LEADER = "kill-leader"
    KILL_RAFT_LEADER = "kill-raft-leader"
    KILL_AGENT = "kill-agent"
    KILL_ETCD = "kill-etcd"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class Ack:
    """One acknowledged write: workload `name` carries value number `number` since `revision`; times are monotonic."""

    name: str
    number: int
    generation: int
    revision: int
    sent_s: float
    acked_s: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """A coordinator's word at one moment on who leads; `term` 0 when it knows of no leader."""

    at_s: float
    coordinator_id: str
    term: int
    leader_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round. Gaps are seconds, None where there was nothing to measure (no new leader in a kill-agent round)."""

    number: int
    kind: Kind
    target: str
    leader_gap_s: float | None = None
    write_gap_s: float = 0.0
    agent_reconnect_s: float | None = None
    settle_s: float | None = None
    tasks_watched: int = 0
    tasks_restarted: tuple[str, ...] = ()
    http_requests: int = 0
    http_failures: int = 0
    writes_before_fault: int = 0
    writes_acked: int = 0
    writes_uncertain: int = 0
    writes_lost: tuple[str, ...] = ()
    terms: tuple[int, ...] = ()
    leaders: dict[int, tuple[str, ...]] = field(default_factory=dict)
    rss_mb: dict[str, float] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stats:
    """Distribution of one figure over rounds."""

    count: int
    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Report:
    """A whole drill; `notes` are limits of what could be proved."""

    rounds: tuple[Round, ...]
    notes: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[str, ...]:
        """Return every fault found, each named by its round. Empty: the cluster passed."""
        found = [f"round {r.number} ({r.kind.value}): {text}" for r in self.rounds for text in judge(r)]
        return (*found, *(["no round was run"] if not self.rounds else []), *terms_that_fell(self.rounds))


FIGURES = ("leader_gap_s", "write_gap_s", "agent_reconnect_s", "settle_s")


def longest_gap_s(acked_s: Sequence[float], start_s: float, end_s: float) -> float:
    """Return the longest time without an acknowledgement between `start_s` and `end_s`.

    The silence before the first and after the last counts too, and a gap that reaches over `start_s` counts from
    the acknowledgement before it.
    """
    before = [at for at in acked_s if at <= start_s]
    inside = sorted(at for at in acked_s if start_s < at <= end_s)
    marks = [max(before, default=start_s), *inside, end_s]
    return max(later - earlier for earlier, later in pairwise(marks))


def leader_gap_s(sightings: Iterable[Sighting], fault_s: float, term_before: int) -> float | None:
    """Return the time from the fault until some coordinator named a leader of a higher term; None if none did."""
    seen = [s.at_s - fault_s for s in sightings if s.at_s >= fault_s and s.term > term_before and s.leader_id]
    return min(seen, default=None)


def leaders_by_term(sightings: Iterable[Sighting]) -> dict[int, tuple[str, ...]]:
    """Return who was said to lead in each term; more than one name in a term is a second effective leader."""
    leaders: dict[int, set[str]] = defaultdict(set)
    for sighting in sightings:
        if sighting.leader_id and sighting.term:
            leaders[sighting.term].add(sighting.leader_id)
    return {term: tuple(sorted(leaders[term])) for term in sorted(leaders)}


def terms_went_back(sightings: Iterable[Sighting]) -> list[str]:
    """Return the coordinators whose word on the term fell during their life (a restart may begin with none)."""
    highest: dict[str, int] = {}
    fell = []
    for sighting in sorted(sightings, key=lambda s: s.at_s):
        known = highest.get(sighting.coordinator_id, 0)
        if 0 < sighting.term < known:
            fell.append(f"{sighting.coordinator_id} went back from term {known} to {sighting.term}")
        highest[sighting.coordinator_id] = max(known, sighting.term)
    return fell


def lost_writes(acks: Iterable[Ack], history: dict[tuple[str, int], int], gaps: Sequence[tuple[int, int]]) -> list[str]:
    """Return the acknowledged writes that the history of all changes does not hold at their revision.

    `history` maps (name, revision) to the value's number; `gaps` are inclusive revision ranges that nobody recorded.
    """
    lost = []
    for ack in acks:
        seen = history.get((ack.name, ack.revision))
        recorded = not any(first <= ack.revision <= last for first, last in gaps)
        if recorded and seen != ack.number:
            instead = f"value {seen}" if seen is not None else "nothing"
            lost.append(f"{ack.name} value {ack.number} at revision {ack.revision}: history has {instead}")
    return lost


def judge(round_: Round) -> list[str]:
    """Return what is wrong with a round, in words; nothing means it passed."""
    found = list(round_.findings)
    found += [f"acknowledged write lost: {text}" for text in round_.writes_lost]
    found += [f"task restarted: {text}" for text in round_.tasks_restarted]
    found += [
        f"two effective leaders in term {term}: {', '.join(names)}"
        for term, names in round_.leaders.items()
        if len(names) > 1
    ]
    if round_.writes_before_fault < WRITES_BEFORE_FAULT_MIN:
        found.append(
            f"proves nothing: {round_.writes_before_fault} writes acknowledged before the fault, "
            f"at least {WRITES_BEFORE_FAULT_MIN} are needed"
        )
    if round_.kind in (Kind.KILL_LEADER, Kind.TRANSFER) and round_.leader_gap_s is None:
        found.append("no new leader was seen")
    if round_.settle_s is None:
        found.append("did not heal in time")
    return found


def terms_that_fell(rounds: Sequence[Round]) -> list[str]:
    """Return the rounds whose newest term is below that of the round before."""
    newest = [(r.number, max(r.terms)) for r in rounds if r.terms]
    return [
        f"round {number}: newest term {term} is below {before}, seen in the round before"
        for (_, before), (number, term) in pairwise(newest)
        if term < before
    ]


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the nearest-rank percentile: always a value that was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def summarise(rounds: Iterable[Round]) -> dict[str, dict[str, Stats]]:
    """Return the distribution of each figure, by kind and over all (`all`); figures never measured are left out."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for round_ in rounds:
        for figure in FIGURES:
            value = getattr(round_, figure)
            if value is not None:
                values[round_.kind.value][figure].append(value)
                values["all"][figure].append(value)
    return {
        kind: {name: Stats(len(v), percentile(v, 0.5), percentile(v, 0.99), max(v)) for name, v in figures.items()}
        for kind, figures in values.items()
    }


def to_plain(report: Report) -> dict[str, Any]:
    """Return the report as plain values: rounds, summary, findings."""
    return {
        "passed": not report.findings,
        "findings": list(report.findings),
        "notes": list(report.notes),
        "summary": {k: {f: asdict(s) for f, s in figures.items()} for k, figures in summarise(report.rounds).items()},
        "rounds": [asdict(r) | {"kind": r.kind.value} for r in report.rounds],
    }


def to_json(report: Report) -> str:
    return json.dumps(to_plain(report), indent=2) + "\n"


def round_line(round_: Round) -> str:
    """Return one round in one line."""
    parts = [f"{round_.number:>3}  {round_.kind.value:<11}  {round_.target:<14}"]
    for name, value in (("leader", round_.leader_gap_s), ("write", round_.write_gap_s),
                        ("agents", round_.agent_reconnect_s), ("healed", round_.settle_s)):  # fmt: skip
        parts.append(f"{name} {_seconds(value)}")
    parts.append(f"{round_.writes_acked} writes, {len(round_.writes_lost)} lost")
    parts.append(f"{round_.http_failures}/{round_.http_requests} http failed")
    return "  ".join(parts)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}s"


def show_report(report: Report, options: Options) -> None:
    """Print the report in the form asked for."""
    import click

    from cloudless.cli.output import show_plain, show_table

    if options.output in ("json", "yaml"):
        return show_plain(options, to_plain(report))
    rows = [
        [
            kind,
            figure.removesuffix("_s").replace("_", " "),
            str(s.count),
            _seconds(s.p50),
            _seconds(s.p99),
            _seconds(s.max),
        ]
        # What holds for all comes last.
        for kind, figures in sorted(summarise(report.rounds).items(), key=lambda found: found[0] == "all")
        for figure, s in figures.items()
    ]
    click.echo()
    show_table(options, ["KIND", "TIME", "ROUNDS", "P50", "P99", "MAX"], rows)
    acked, lost = sum(r.writes_acked for r in report.rounds), sum(len(r.writes_lost) for r in report.rounds)
    failed, asked = sum(r.http_failures for r in report.rounds), sum(r.http_requests for r in report.rounds)
    click.echo(f"\n{acked} writes acknowledged, {lost} lost; {asked} requests to replicas, {failed} failed")
    for note in report.notes:
        click.echo(f"note: {note}")
    for finding in report.findings:
        click.echo(click.style("FOUND ", fg="red", bold=True) + finding)
    click.echo(
        click.style("passed", fg="green", bold=True)
        if not report.findings
        else f"failed: {len(report.findings)} finding(s)"
    )
