"""One round of a drill: load, fault, repair, healing, proof.

::

    load runs ─► ≥ 20 writes ─► fault ─► repair (start again what was killed) ─► healed? ─► proof
                                  '── leader gap, write gap, agents' reconnect measured from here
    healed: three voters started, every coordinator answers, digests equal at one revision, all nodes READY
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cloudless.adapters.member.pidfile import Identity
from cloudless.cli.aio import AsyncClient
from cloudless.cli.dev import table as processes
from cloudless.cli.dev.health import Health
from cloudless.cli.dev.history import History
from cloudless.cli.dev.prober import Prober
from cloudless.cli.dev.proof import final_reads_lost, restarted_tasks, running_tasks
from cloudless.cli.dev.report import (
    WRITES_BEFORE_FAULT_MIN,
    Kind,
    Round,
    leader_gap_s,
    leaders_by_term,
    longest_gap_s,
    lost_writes,
    terms_went_back,
)
from cloudless.cli.dev.status import process_rows
from cloudless.cli.dev.table import Table
from cloudless.cli.dev.witness import Witness
from cloudless.cli.dev.writer import Writer
from cloudless.cli.methods import LIST_MEMBERS, TRANSFER_LEADER
from cloudless.errors import CloudlessError, MemberFailed, NoQuorum
from cloudless.rpc.v1.cluster_pb2 import ListMembersRequest, TransferLeaderRequest

_LOAD_TIMEOUT_S = 10.0
_NEW_LEADER_WAIT_S = 10.0
_TAIL_S = 1.0
_POLL_S = 0.02
_HISTORY_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Stage:
    """All that watches and loads the cluster while rounds go on."""

    table: Table
    client: AsyncClient
    clients: dict[str, AsyncClient]
    writer: Writer
    prober: Prober
    witness: Witness
    history: History
    health: Health
    workload: tuple[str, str]
    settle_s: float
    verified: int = 0
    notes: list[str] = field(default_factory=list)


async def run_round(stage: Stage, number: int, kind: Kind) -> Round:
    """Run one round and return its figures; faults of the cluster are findings in it, never exceptions."""
    before = await running_tasks(stage.client, *stage.workload)
    await stage.prober.aim({address for task in before.values() for address in task.addresses})
    first_ack, first_probe, first_sighting = (
        len(stage.writer.acks),
        len(stage.prober.probes),
        len(stage.witness.sightings),
    )
    uncertain, refused = stage.writer.uncertain, len(stage.writer.refusals) + len(stage.history.refusals)
    await _until(lambda: len(stage.writer.acks) - first_ack >= WRITES_BEFORE_FAULT_MIN, _LOAD_TIMEOUT_S)
    writes_before = len(stage.writer.acks) - first_ack
    leader_id, term = _leader(stage)
    target = await _target(stage, kind, leader_id, number, [task.node_id for task in before.values()])

    fault_s = time.monotonic()
    await _FAULTS[kind](stage, target, term)
    settled_s = await stage.health.wait_settled(stage.settle_s)
    reconnected = await _until(lambda: _reconnected_s(stage, fault_s) is not None, 5.0)
    await asyncio.sleep(_TAIL_S)
    end_s = time.monotonic()

    sightings = stage.witness.sightings[first_sighting:]
    leaders = leaders_by_term(sightings)
    probes = stage.prober.probes[first_probe:]
    findings = [*stage.health.findings(), *terms_went_back(sightings), *(await stage.health.leader_metrics())]
    findings += [*stage.writer.refusals, *stage.history.refusals][refused:]
    return Round(
        number=number, kind=kind, target=target,
        leader_gap_s=leader_gap_s(sightings, fault_s, term),
        write_gap_s=longest_gap_s([a.acked_s for a in stage.writer.acks[first_ack:]], fault_s, end_s),
        agent_reconnect_s=_reconnected_s(stage, fault_s) if reconnected else None,
        settle_s=settled_s - fault_s if settled_s else None,
        tasks_watched=len(before),
        tasks_restarted=tuple(await restarted_tasks(stage.client, *stage.workload, before)),
        http_requests=len(probes), http_failures=sum(bool(p.failure) for p in probes),
        writes_before_fault=writes_before, writes_acked=len(stage.writer.acks) - first_ack,
        writes_uncertain=stage.writer.uncertain - uncertain,
        writes_lost=tuple(await _lost(stage)),
        terms=tuple(leaders), leaders=leaders,
        rss_mb={row.name: round(row.rss_mb, 1) for row in process_rows(stage.table) if row.pid},
        findings=tuple(findings),
    )  # fmt: skip


# --- before the fault ---------------------------------------------------------------------------


def _leader(stage: Stage) -> tuple[str, int]:
    newest = stage.witness.newest()
    if newest is None or not newest.leader_id:
        raise NoQuorum("no coordinator names a leader", hint="`cloudless dev status` shows what is wrong")
    return newest.leader_id, newest.term


async def _target(stage: Stage, kind: Kind, leader_id: str, number: int, busy_nodes: list[str]) -> str:
    if kind is Kind.KILL_RAFT_LEADER:
        members = (await stage.client.call(LIST_MEMBERS, ListMembersRequest())).members
        return next((member.name for member in members if member.raft_leader), leader_id)
    if kind is not Kind.KILL_AGENT:
        return leader_id
    # An agent that holds tasks proves more; each in its turn.
    agents = sorted(set(busy_nodes)) or [plan.name for plan in stage.table.layout.agents]
    return agents[number % len(agents)]


# --- faults, each with its repair ---------------------------------------------------------------


async def _kill_leader(stage: Stage, target: str, term: int) -> None:
    etcd = stage.table.etcd_of(target)
    _kill(stage.table.living().get(target), target)
    _kill(etcd, f"{target}/etcd")
    # Whoever starts it again does so after the cluster has moved on: that is the case worth measuring.
    await _until(lambda: _has_newer_leader(stage, term), _NEW_LEADER_WAIT_S)
    await _start(stage, target)


async def _kill_raft_leader(stage: Stage, target: str, _: int) -> None:
    etcd, acks = stage.table.etcd_of(target), len(stage.writer.acks)
    _kill(stage.table.living().get(target), target)
    _kill(etcd, f"{target}/etcd")
    # Again only once the rest of the cluster writes without it.
    await _until(lambda: len(stage.writer.acks) >= acks + WRITES_BEFORE_FAULT_MIN, _NEW_LEADER_WAIT_S)
    await _start(stage, target)


async def _kill_agent(stage: Stage, target: str, _: int) -> None:
    _kill(stage.table.living().get(target), target)
    await _start(stage, target)


async def _kill_etcd(stage: Stage, target: str, _: int) -> None:
    # Its coordinator starts it again; nothing to repair.
    _kill(stage.table.etcd_of(target), f"{target}/etcd")


async def _transfer(stage: Stage, _: str, __: int) -> None:
    try:
        await stage.client.call(TRANSFER_LEADER, TransferLeaderRequest())
    except CloudlessError as error:
        stage.notes.append(f"transfer was answered with {error.code}: {error.message}")


_FAULTS: dict[Kind, Callable[[Stage, str, int], Awaitable[None]]] = {
    Kind.KILL_LEADER: _kill_leader,
    Kind.KILL_RAFT_LEADER: _kill_raft_leader,
    Kind.KILL_AGENT: _kill_agent,
    Kind.KILL_ETCD: _kill_etcd,
    Kind.TRANSFER: _transfer,
}


def _kill(who: Identity | None, name: str) -> None:
    if who is None or not processes.send(who, signal.SIGKILL):
        raise MemberFailed(
            f"{name} does not run, so it cannot be killed", hint="`cloudless dev status` shows what runs"
        )


async def _start(stage: Stage, name: str) -> None:
    await _until(lambda: name not in stage.table.living(), 5.0)
    stage.table.start(name)


# --- after the fault ----------------------------------------------------------------------------


def _has_newer_leader(stage: Stage, term: int) -> bool:
    newest = stage.witness.newest()
    return newest is not None and newest.term > term and bool(newest.leader_id)


def _reconnected_s(stage: Stage, fault_s: float) -> float | None:
    """Return how long after the fault the last agent was heard for the first time, None while one is missing."""
    heard = [stage.witness.heard_after(plan.name, fault_s) for plan in stage.table.layout.agents]
    times = [at for at in heard if at is not None]
    return max(times) - fault_s if len(times) == len(heard) else None


async def _lost(stage: Stage) -> list[str]:
    """Return the acknowledged writes not yet verified that are not in the history, or not readable everywhere."""
    acks = stage.writer.acks[stage.verified :]
    newest = max((ack.revision for ack in acks), default=0)
    if not await stage.history.wait_for(newest, _HISTORY_TIMEOUT_S):
        return [f"no coordinator delivered the changes up to revision {newest}"]
    stage.verified += len(acks)
    lost = lost_writes(acks, stage.history.values, stage.history.gaps)
    return lost + await final_reads_lost(stage.clients, stage.writer.last_acks())


async def _until(done: Callable[[], bool], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(_POLL_S)
    return True
