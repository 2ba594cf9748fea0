"""Gather what the coordinators say, each with a deadline of its own: the silence of one is a fact, never a failure.

All addresses are asked at once, then those that the first answers name. A coordinator is asked what needs no cluster
first (InspectCoordinator), and the rest only if it belongs to one, so that a sick cluster is looked at quickly too.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cloudless.cli.client import Client
from cloudless.cli.digests import compare_digests
from cloudless.cli.methods import GET_STATUS, INSPECT_COORDINATOR, LIST_EVENTS
from cloudless.core.diagnosis import ClusterFacts, CoordinatorFacts, DiskFacts, MemberFacts, StoreFacts
from cloudless.errors import CloudlessError, Denied, Unavailable
from cloudless.ports import Credentials
from cloudless.rpc.v1.cluster_pb2 import GetStatusRequest, GetStatusResponse
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_STALE, ReadOptions
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.maintenance_pb2 import InspectCoordinatorRequest, InspectCoordinatorResponse
from etcd.gate import Version, judge

T = TypeVar("T")
V = TypeVar("V")

ASK_S = 3.0
CONNECT_S = 1.0
ASKED_AT_ONCE_MAX = 16
ELECTIONS_WITHIN_S = 600.0
EVENTS_MAX = 1_000
ELECTED = "LeaderElected"


def gather_cluster(
    addresses: Iterable[str], timeout_s: float, credentials: Credentials | None = None, *, named: bool = True
) -> ClusterFacts:
    """Return what the coordinators at `addresses`, and those they know of, say. Never raises for what is sick.

    `named`: a person named these addresses, so that one without an answer is worth a word.
    """
    ask_s = min(ASK_S, timeout_s)
    asked = dict.fromkeys(addresses)
    answers = at_once(lambda address: ask_coordinator(address, ask_s, credentials), asked)
    facts = {address: replace(one, listed=named) for address, (one, _) in answers.items()}
    learned = _learned(facts, [status for _, status in answers.values() if status])
    facts |= {
        address: replace(one, id=one.id or learned[address])
        for address, (one, _) in at_once(lambda address: ask_coordinator(address, ask_s, credentials), learned).items()
    }
    coordinators = _without_doubles(facts.values())
    coordinators = _with_digests(coordinators, ask_s, credentials)
    elections = _count_elections(coordinators, ask_s, credentials)
    return ClusterFacts(
        coordinators=_with_reach(coordinators), elections=elections, elections_within_s=ELECTIONS_WITHIN_S
    )


def at_once(call: Callable[[T], V], arguments: Iterable[T]) -> dict[T, V]:
    """Return the results by argument, all computed at the same time, in the order given."""
    given = list(arguments)
    with ThreadPoolExecutor(ASKED_AT_ONCE_MAX) as pool:
        return dict(zip(given, pool.map(call, given), strict=True))


def ask_coordinator(
    address: str, timeout_s: float, credentials: Credentials | None = None
) -> tuple[CoordinatorFacts, GetStatusResponse | None]:
    """Return what the coordinator at `address` says of itself, and its status if it has one to give."""
    facts, status = CoordinatorFacts(address=address), None
    with Client((address,), timeout_s, credentials) as client:
        began_s = time.time()
        try:
            inspected = client.call(INSPECT_COORDINATOR, InspectCoordinatorRequest())
        except CloudlessError as error:
            if isinstance(error, Denied):
                return replace(facts, error=error.message, denied=True), None
            if isinstance(error, Unavailable):
                return replace(facts, error=error.message, foreign=_is_foreign(address, error)), None
        else:
            facts = _with_inspected(facts, inspected, began_s, time.time())
            if facts.waiting_for:
                return facts, None
        try:
            status = client.call(GET_STATUS, GetStatusRequest())
        except CloudlessError as error:
            if facts.id:
                return facts, None
            return replace(facts, error=error.message, foreign=not error.retryable), None
    return _with_status(facts, status), status


def _is_foreign(address: str, error: CloudlessError) -> bool:
    """Whether something listens there at once that does not speak as a coordinator does. One that hangs may be one."""
    return type(error) is Unavailable and connects(address)


def connects(address: str, timeout_s: float = CONNECT_S) -> bool:
    """Return whether anything accepts a connection at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except (OSError, ValueError):
        return False
    return True


def _with_inspected(
    facts: CoordinatorFacts, said: InspectCoordinatorResponse, began_s: float, ended_s: float
) -> CoordinatorFacts:
    judgement = _judge_etcd(said.etcd_version)
    return replace(
        facts,
        id=said.coordinator_id,
        version=said.version,
        etcd_version=said.etcd_version,
        etcd_verdict=judgement[0],
        etcd_reason=judgement[1],
        phase=said.phase,
        waiting_for=said.waiting_for,
        linked=tuple(said.linked),
        ailments=tuple(sorted(said.ailments.items())),
        members=tuple(_member(member) for member in said.members),
        store=to_store(said.store) if said.HasField("store") else None,
        store_error=said.store_error,
        disk=_disk(said.disk) if said.HasField("disk") else None,
        profile=said.profile,
        clock_offset_s=said.wall_ms / 1000 - (began_s + ended_s) / 2,
        clock_uncertainty_s=(ended_s - began_s) / 2,
        etcd_phase=said.etcd_phase,
        etcd_restarts=said.etcd_restarts,
        etcd_last_exit=said.etcd_last_exit,
        etcd_last_words=said.etcd_last_words,
        quota_hours_left=said.quota_hours_left,
        refuses_writes=said.refuses_writes,
        hygiene=said.hygiene,
        open_files_max=said.open_files_max,
    )


def _judge_etcd(version: str) -> tuple[str, str]:
    try:
        judgement = judge(Version.parse(version))
    except ValueError:
        return "", ""
    return judgement.verdict.value, judgement.reason


def _member(said: Any) -> MemberFacts:
    return MemberFacts(
        id=said.id,
        name=said.name,
        peer_urls=tuple(said.peer_urls),
        learner=said.learner,
        started=said.started,
        raft_leader=said.raft_leader,
    )


def to_store(said: Any) -> StoreFacts:
    return StoreFacts(
        member_id=said.member_id,
        cluster_id=said.cluster_id,
        version=said.version,
        size_bytes=said.size_bytes,
        in_use_bytes=said.in_use_bytes,
        quota_bytes=said.quota_bytes,
        leader_id=said.leader_id,
        raft_term=said.raft_term,
        raft_index=said.raft_index,
        applied_index=said.applied_index,
        learner=said.learner,
        alarms=tuple(said.alarms),
    )


def _disk(said: Any) -> DiskFacts:
    return DiskFacts(
        free_bytes=said.free_bytes,
        total_bytes=said.total_bytes,
        free_inodes=said.free_inodes,
        total_inodes=said.total_inodes,
        fsync_p50_ms=said.fsync_p50_ms,
        fsync_p99_ms=said.fsync_p99_ms,
    )


def _with_status(facts: CoordinatorFacts, status: GetStatusResponse) -> CoordinatorFacts:
    header = status.header
    return replace(
        facts,
        id=facts.id or header.coordinator_id,
        version=facts.version or status.version,
        feature_level=status.feature_level,
        etcd_version=facts.etcd_version or status.etcd_version,
        health=status.health,
        staleness_s=header.staleness_s,
        leader_id=header.leader_id,
        term=header.term,
        cluster_id=header.cluster_id,
        etcd_cluster_id=status.etcd_cluster_id or (facts.store.cluster_id if facts.store else 0),
        revision=header.revision,
        known=tuple(sorted(one.record.id for one in status.coordinators)),
        quarantine=tuple(sorted(status.quarantine.items())),
        nodes_total=status.nodes_total,
        nodes_ready=status.nodes_ready,
        workloads_total=status.workloads_total,
    )


def _learned(facts: dict[str, CoordinatorFacts], statuses: list[GetStatusResponse]) -> dict[str, str]:
    """Return the addresses, with their coordinators' ids, that were named by others and not asked yet."""
    answered = {one.id for one in facts.values() if one.id}
    named = {record.api_address: record.id for status in statuses for record in _records(status)}
    for address in facts.keys() & named.keys():
        if not facts[address].id:
            facts[address] = replace(facts[address], id=named[address])
    return {
        address: id for address, id in sorted(named.items()) if address and id not in answered and address not in facts
    }


def _records(status: GetStatusResponse) -> list[Any]:
    return [one.record for one in status.coordinators]


def _without_doubles(facts: Iterable[CoordinatorFacts]) -> tuple[CoordinatorFacts, ...]:
    """Keep the first of those that are the same coordinator; one that answers somewhere is not silent elsewhere."""
    kept: dict[str, CoordinatorFacts] = {}
    for one in facts:
        key = one.id or one.address
        if key not in kept or (kept[key].error and not one.error):
            kept[key] = one
    return tuple(kept.values())


def _with_digests(
    coordinators: tuple[CoordinatorFacts, ...], timeout_s: float, credentials: Credentials | None
) -> tuple[CoordinatorFacts, ...]:
    """Ask all that hold a state for its digest at one revision."""
    addresses = tuple(one.address for one in coordinators if one.health)
    if len(addresses) < 2:
        return coordinators
    compared = compare_digests(addresses, timeout_s, credentials=credentials)
    return tuple(
        replace(one, digest=seen.digest, digest_revision=seen.revision)
        if (seen := compared.seen.get(one.address)) and seen.digest
        else one
        for one in coordinators
    )


def _count_elections(
    coordinators: tuple[CoordinatorFacts, ...], timeout_s: float, credentials: Credentials | None
) -> int:
    """Return how many leaders were elected lately, by the events of any that has them; -1 if none tells."""
    serving = [one.address for one in coordinators if one.health]
    if not serving:
        return -1
    request = ListEventsRequest(read=ReadOptions(consistency=CONSISTENCY_STALE), limit=EVENTS_MAX)
    since_ms = (time.time() - ELECTIONS_WITHIN_S) * 1000
    try:
        with Client(serving, timeout_s, credentials) as client:
            events = client.call(LIST_EVENTS, request).events
    except CloudlessError:
        return -1
    return sum(event.kind == ELECTED and event.at_ms >= since_ms for event in events)


def _with_reach(coordinators: tuple[CoordinatorFacts, ...]) -> tuple[CoordinatorFacts, ...]:
    """Try the raft addresses of members whose coordinators do not answer: a firewall may hide those of the others."""
    here = {one.id for one in coordinators if not one.error}
    urls = {
        url for one in coordinators for member in one.members if member.name not in here for url in member.peer_urls
    }
    reached = at_once(lambda url: connects(urlsplit(url).netloc), sorted(urls))
    return tuple(
        replace(one, members=tuple(_member_reached(member, reached) for member in one.members)) for one in coordinators
    )


def _member_reached(member: MemberFacts, reached: dict[str, bool]) -> MemberFacts:
    tried = [reached[url] for url in member.peer_urls if url in reached]
    return replace(member, answers=any(tried)) if tried else member
