"""What must hold after every fault, whatever it was. Each oracle returns what it found wrong, in words.

They are asked once the cluster says that it is whole again; until then `Trial.settle` waits, inside a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from cloudless.agent.journal import Head, _read_head
from cloudless.cli.dev.proof import final_reads_lost
from cloudless.cli.methods import GET_DIGEST, LIST_EVENTS
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from tests.faults.rig.load import Load
from tests.faults.rig.processes import (
    Holding,
    Running,
    command_lines,
    holdings,
    strangers,
    tasks_running,
)
from tests.faults.rig.record import StoreRecord, rebuild
from tests.integration.cluster import LocalCluster

# A descriptor or thread may be open for a moment; a leak grows with every round.
FDS_SPARE = 12
# The library that talks to Docker keeps a connection for each of the last 25 addresses it asked.
ENGINE_FDS = 25
THREADS_SPARE = 6
SESSIONS_OF_AN_AGENT = 2


@dataclass
class Evidence:
    """All that the oracles look at."""

    cluster: LocalCluster
    load: Load
    record: StoreRecord
    run_id: str
    secret: str
    tasks_before: dict[str, Running]
    held_before: dict[str, Holding]
    heads_before: dict[str, Head]
    replaced_may_be: frozenset[str] = frozenset()
    fds_spare: int = FDS_SPARE


def acknowledged_writes_survive(seen: Evidence) -> list[str]:
    """O1, O6: each is stored at its revision, once, and every coordinator reads it back."""
    found = seen.record.lost(seen.load.acks) + seen.record.repeated()
    found += [f"the load was refused: {text}" for text in seen.load.writer.refusals]
    clients = {process.name: seen.load.client(process.name) for process in seen.cluster.coordinators}
    return found + seen.load.run(final_reads_lost(clients, seen.load.last_acks()))


def one_effective_leader(seen: Evidence) -> list[str]:
    """O2: nothing of an older term was stored after a newer one's; a term has one leader; nobody's term goes back."""
    found = seen.record.late_terms()
    leaders: dict[int, str] = {}
    newest: dict[str, int] = {}
    for sighting in list(seen.load.sightings):
        if not sighting.term or not sighting.leader_id:
            continue
        first = leaders.setdefault(sighting.term, sighting.leader_id)
        if first != sighting.leader_id:
            found.append(f"term {sighting.term} had two leaders: {first} and {sighting.leader_id}")
        before = newest.setdefault(sighting.coordinator_id, sighting.term)
        if sighting.term < before:
            found.append(f"{sighting.coordinator_id} went from term {before} back to {sighting.term}")
        newest[sighting.coordinator_id] = sighting.term
    return found


def revisions_never_go_back(seen: Evidence) -> list[str]:
    """O3, for coordinators asked all the time, and for what agents noted on their disks."""
    found = list(seen.load.went_back)
    for agent in seen.cluster.agents:
        now, was = head_of(seen.cluster, agent.name), seen.heads_before.get(agent.name)
        if was and (now.term_seen, now.revision_seen) < (was.term_seen, was.revision_seen):
            found.append(f"{agent.name} had seen {was}, now {now}")
        seen.heads_before[agent.name] = now
    return found


def head_of(cluster: LocalCluster, agent: str) -> Head:
    """Return what an agent has on its disk about the newest it has seen."""
    return _read_head(cluster.processes[agent].data_dir / "head")


def states_are_equal(seen: Evidence) -> list[str]:
    """O4, O8: digests and etcd's own hashes agree at one revision, and with a state built from a fresh read."""
    seen.cluster.assert_equal_states()
    found = []
    for process in seen.cluster.coordinators:
        revision, digest = asyncio.run(rebuild(partial(seen.cluster.store, process.name)))
        told = {
            other.name: seen.cluster.call(GET_DIGEST, GetDigestRequest(revision=revision), other.name).digest
            for other in seen.cluster.coordinators
        }
        if set(told.values()) != {digest}:
            found.append(f"a fresh read of {process.name} at revision {revision} gives {digest}, told are {told}")
    return found


def tasks_were_left_alone(seen: Evidence) -> list[str]:
    """O5: every task of before runs in the process it ran in, and none runs in two."""
    now = tasks_running(seen.run_id)
    found = [f"task {task} runs as {running}" for task, running in now.items() if len(running) > 1]
    for task, was in seen.tasks_before.items():
        if task not in seen.replaced_may_be and was not in now.get(task, []):
            found.append(f"task {task} ran as {was}, runs as {now.get(task, 'nothing')}")
    return found


def requests_ended_in_time(seen: Evidence) -> list[str]:
    """O7."""
    return [f"a read at {late.coordinator_id} took {late.took_s:.1f} s" for late in seen.load.overdue]


def nothing_was_leaked(seen: Evidence) -> list[str]:
    """O9: no process without an owner, no session without an agent; descriptors and threads as before."""
    found = [f"nobody owns process {words}" for words in strangers(seen.cluster)]
    sessions = sum(seen.cluster.metric(process.name, "agent_sessions") for process in seen.cluster.coordinators)
    nodes = len(seen.cluster.phases())
    if sessions > SESSIONS_OF_AN_AGENT * nodes:
        found.append(f"coordinators count {sessions:g} sessions of {nodes} agents")
    for name, now in holdings(seen.cluster).items():
        was = seen.held_before.get(name, now)
        if now.fds > was.fds + seen.fds_spare or now.threads > was.threads + THREADS_SPARE:
            found.append(f"{name} held {was}, holds {now}")
    return found


def no_secret_was_told(seen: Evidence) -> list[str]:
    """O11: no value of a task's environment, token, private key or cluster key is in any log, argv, event or metric."""
    secrets = seen.cluster.trust.secrets(list(seen.cluster.processes.values())) | {"a task's variable": seen.secret}
    return [
        f"{where} {what}"
        for where, text in _public_texts(seen.cluster)
        for what, secret in secrets.items()
        if secret in text
    ]


def _public_texts(cluster: LocalCluster) -> Iterator[tuple[str, str]]:
    for process in cluster.processes.values():
        yield f"the log of {process.name} tells", process.log.read_text(errors="replace")
    for coordinator in cluster.coordinators:
        yield f"the metrics of {coordinator.name} tell", cluster.metrics_text(coordinator.name)
    yield "the events tell", str(cluster.call(LIST_EVENTS, ListEventsRequest(limit=1000)).events)
    for pid, words in command_lines(cluster):
        yield f"the command line of {pid} tells", words


ORACLES: tuple[Callable[[Evidence], list[str]], ...] = (
    acknowledged_writes_survive,
    one_effective_leader,
    revisions_never_go_back,
    states_are_equal,
    tasks_were_left_alone,
    requests_ended_in_time,
    nothing_was_leaked,
    no_secret_was_told,
)
