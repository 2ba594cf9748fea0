"""How long writes and leadership pause after each kind of fault, beside bare etcd losing its leader.

Faults are those of `cloudless dev drill`, with its load, its proofs and its findings. Between them, in the same run,
the leader of three bare etcd members with the same flags is killed under the same load: four writers, fifty puts a
second, a short deadline, the next member after a failure. Gaps are taken alike: the longest time without an
acknowledgement.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import AsyncExitStack

import grpc.aio

from cloudless.cli.dev.drill import DrillSettings, run_drill
from cloudless.cli.dev.report import Kind, Round, judge, longest_gap_s, percentile
from tests.architecture.tree import ROOT
from tests.bench.bench import Bench
from tests.bench.figures import Bar, Figure, at_most
from tests.bench.members import Members, bare_members
from tests.bench.rawetcd import RawEtcd
from tests.bench.stage import dev_cluster

KINDS = (Kind.KILL_RAFT_LEADER, Kind.KILL_LEADER, Kind.TRANSFER)
_WRITERS = 4
_PUTS_PER_S = 50.0
_DEADLINE_S = 0.4
_PAUSE_S = 0.05
_BEFORE_S, _AFTER_S = 1.0, 3.0
_SETTLE_S = 60.0


async def measure(bench: Bench) -> list[Figure]:
    rounds: dict[Kind, list[Round]] = defaultdict(list)
    raw_gaps_s: list[float] = []
    with dev_cluster((ROOT / "examples/hello.yaml").read_text(encoding="utf-8")) as cluster, bare_members() as members:
        for number in range(bench.failovers):
            raw_gaps_s.append(await _raw_gap_s(members))
            bench.say(f"round {number + 1} of {bench.failovers}: bare etcd's gap {raw_gaps_s[-1]:.2f} s")
            settings = DrillSettings(rounds=len(KINDS), kinds=KINDS, settle_s=_SETTLE_S)
            report = await asyncio.to_thread(run_drill, cluster.table, settings)  # has a loop of its own
            for done in report.rounds:
                rounds[done.kind].append(done)
    return _figures(rounds, raw_gaps_s)


async def _raw_gap_s(members: Members) -> float:
    """Kill the bare cluster's leader under load, start it again, and return the gap in the writers' puts."""
    leader = await members.leader()
    acked_s: list[float] = []
    async with AsyncExitStack() as stack:
        raw = RawEtcd(stack, members.endpoints)
        writers = [asyncio.create_task(_write_on(raw, n, acked_s)) for n in range(_WRITERS)]
        try:
            await asyncio.sleep(_BEFORE_S)
            killed_s = time.monotonic()
            members.kill(leader)
            await asyncio.sleep(_AFTER_S)
            gap_s = longest_gap_s(acked_s, killed_s, time.monotonic())
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
            members.start(leader)
    await members.leader()
    return gap_s


async def _write_on(raw: RawEtcd, writer: int, acked_s: list[float]) -> None:
    member = writer
    while True:
        started_s = time.monotonic()
        try:
            await raw.put(member, timeout_s=_DEADLINE_S)
            acked_s.append(time.monotonic())
        except grpc.aio.AioRpcError:
            member += 1
            await asyncio.sleep(_PAUSE_S)
        await asyncio.sleep(max(0.0, _WRITERS / _PUTS_PER_S - (time.monotonic() - started_s)))


def _figures(rounds: dict[Kind, list[Round]], raw_gaps_s: list[float]) -> list[Figure]:
    figures = [Figure("raw_gap", "bare etcd, leader killed: gap in writes", "s", tuple(raw_gaps_s))]
    for kind, done in rounds.items():
        word = kind.value.replace("-", "_")
        gaps = tuple(r.write_gap_s for r in done)
        leader_gaps = tuple(r.leader_gap_s for r in done if r.leader_gap_s is not None)
        figures.append(Figure(f"{word}_write_gap", f"{kind.value}: gap in writes", "s", gaps))
        if leader_gaps:
            bar = at_most(0.2) if kind is Kind.TRANSFER else None
            figures.append(
                Figure(f"{word}_leader_gap", f"{kind.value}: until a new leader leads", "s", leader_gaps, bar)
            )
        for name, fraction, limit in (("p50", 0.5, 1.5), ("p99", 0.99, 2.5)):
            if kind is not Kind.TRANSFER:
                text = f"{kind.value}: gap in writes / bare etcd's, {name}"
                figures.append(_against_raw(f"{word}_to_raw_{name}", text, gaps, raw_gaps_s, fraction, at_most(limit)))
    everything = [r for done in rounds.values() for r in done]
    restarted, lost = sum(len(r.tasks_restarted) for r in everything), sum(len(r.writes_lost) for r in everything)
    figures += [
        Figure("tasks_restarted", "tasks restarted that nobody touched", "", (restarted,), at_most(0)),
        Figure("writes_lost", "acknowledged writes lost", "", (lost,), at_most(0)),
        Figure("findings", "findings of the drill", "", (sum(len(judge(r)) for r in everything),), at_most(0)),
    ]
    return figures


def _against_raw(name: str, text: str, ours: tuple[float, ...], raw: list[float], fraction: float, bar: Bar) -> Figure:
    """Return the ratio of two percentiles: faults do not come in pairs as short runs do."""
    return Figure(name, text, "ratio", (percentile(ours, fraction) / percentile(raw, fraction),), bar)
