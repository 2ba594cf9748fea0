"""Rules about one host: whether a coordinator or agent could run here, and well."""

from __future__ import annotations

from collections.abc import Iterator

from cloudless.core.diagnosis.amounts import size
from cloudless.core.diagnosis.facts import ClusterFacts, HostFacts
from cloudless.core.diagnosis.finding import Finding
from cloudless.core.diagnosis.kinds import find
from cloudless.core.diagnosis.space_rules import judge_disk
from cloudless.core.versions import parse_version

MEMORY_WANTED_BYTES = {"coordinator": 384 << 20, "agent": 96 << 20, "": 0}
OPEN_FILES_MIN = 4_096
SWAP_USED_MAX_BYTES = 512 << 20
THIS_HOST = "this host"
_VERDICTS = {"refused": "etcd-refused", "degraded": "etcd-degraded", "warn": "etcd-old"}


def judge_host(host: HostFacts) -> Iterator[Finding]:
    """Return everything about this host that is wrong for its role."""
    for problem in host.settings_problems:
        yield find("settings-refused", THIS_HOST, problem=problem)
    for port in host.ports:
        if port.taken_by:
            yield find("port-taken", THIS_HOST, address=port.address, purpose=port.purpose, owner=port.taken_by)
    for name in host.names_unresolved:
        yield find("name-unresolved", THIS_HOST, name=name)
    for name in host.advertises_loopback:
        yield find("advertises-loopback", THIS_HOST, name=name)
    for pid, path in host.orphans:
        yield find("orphaned-etcd", THIS_HOST, pid=pid, path=path)
    yield from _judge_stores(host)
    yield from _judge_etcd(host)
    yield from _judge_memory(host)
    if 0 < host.open_files_max < OPEN_FILES_MIN:
        yield find("open-files", THIS_HOST, limit=host.open_files_max)
    if host.clock_synchronised is False:
        yield find("clock-unsynchronised", THIS_HOST)
    if host.disk:
        yield from judge_disk(THIS_HOST, host.disk)


def judge_newcomer(host: HostFacts, cluster: ClusterFacts) -> Iterator[Finding]:
    """Whether a new node with these settings fits into the cluster it is to join."""
    if not cluster.answering and not host.founds:
        variable = "CLOUDLESS_COORDINATOR_ADDR" if host.role == "agent" else "CLOUDLESS_RAFT_JOIN_ADDR"
        yield find("nobody-to-join", THIS_HOST, *(f"{one.address}: {one.error}" for one in cluster.coordinators),
                   role=host.role, variable=variable)  # fmt: skip
    if host.role == "coordinator" and any(one.id == host.node_id for one in cluster.answering):
        yield find("id-taken", host.node_id, *(one.address for one in cluster.answering if one.id == host.node_id))
    running = {one.version for one in cluster.answering if one.version}
    stores = {one.etcd_version for one in cluster.answering if one.etcd_version}
    for what, mine, theirs in (("cloudless", host.version, running), ("etcd", host.etcd_version, stores)):
        if any(_apart(mine, other) for other in theirs):
            yield find("version-apart", THIS_HOST, what=what, version=mine, others=", ".join(sorted(theirs)))


def _apart(mine: str, other: str) -> bool:
    """Whether two versions are more than one minor version apart; what cannot be read is not."""
    one, two = parse_version(mine), parse_version(other)
    return bool(one and two and (one[0] != two[0] or abs(one[1] - two[1]) > 1))


def _judge_stores(host: HostFacts) -> Iterator[Finding]:
    """What the members on this host say when asked directly, past coordinators that may not answer."""
    for path, store in host.stores:
        for alarm in store.alarms:
            if alarm.startswith("NOSPACE"):
                yield find("nospace", "", f"{alarm}, by the etcd on {path}: file {size(store.size_bytes)}")
        if not store.leader_id:
            yield find(
                "local-no-leader", THIS_HOST, f"raft term {store.raft_term}, member {store.member_id:x}", path=path
            )


def _judge_etcd(host: HostFacts) -> Iterator[Finding]:
    if host.etcd_missing:
        yield find("no-etcd", THIS_HOST, reason=host.etcd_missing)
    elif host.etcd_verdict in _VERDICTS:
        yield find(_VERDICTS[host.etcd_verdict], THIS_HOST, host.etcd_path, version=host.etcd_version,
                   reason=host.etcd_reason)  # fmt: skip


def _judge_memory(host: HostFacts) -> Iterator[Finding]:
    wanted, role = MEMORY_WANTED_BYTES[host.role], host.role
    if wanted and 0 <= host.memory_free_bytes < wanted:
        yield find("memory-low", THIS_HOST, free=size(host.memory_free_bytes), role=role, wanted=size(wanted))
    if wanted and 0 < host.memory_limit_bytes < wanted:
        yield find("memory-limit", THIS_HOST, limit=size(host.memory_limit_bytes), role=role, wanted=size(wanted))
    if host.swap_used_bytes > SWAP_USED_MAX_BYTES:
        yield find("swapping", THIS_HOST, used=size(host.swap_used_bytes))
