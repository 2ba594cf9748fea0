"""Rules about single members: down, behind, never started, removed, of which version."""

from __future__ import annotations

from collections.abc import Iterator

from cloudless.core.diagnosis.cluster_rules import WAITING
from cloudless.core.diagnosis.facts import ClusterFacts, CoordinatorFacts, MemberFacts
from cloudless.core.diagnosis.finding import Finding
from cloudless.core.diagnosis.kinds import find
from cloudless.core.versions import parse_level, parse_version, write_level

BEHIND_MAX = 5_000
"""Log entries: etcd keeps 10,000 for followers that lag; beyond that it must send them everything."""
RESTARTS_MAX = 3
_VERDICTS = {"refused": "etcd-refused", "degraded": "etcd-degraded", "warn": "etcd-old"}


def judge_members(cluster: ClusterFacts) -> Iterator[Finding]:
    """The member list against who answers."""
    members = list_members(cluster)
    if not members:
        return
    reached = {one.id: one for one in cluster.answering if one.id}
    for member in members:
        yield from _judge_member(member, reached.get(member.name), cluster)
    voters = [member for member in members if not member.learner]
    if len(voters) in (1, 2):
        yield find("few-voters", "", ", ".join(sorted(member.name for member in voters)), voters=len(voters))
    elif len(voters) % 2 == 0:
        yield find("even-voters", "", voters=len(voters), fewer=len(voters) - 1)


def list_members(cluster: ClusterFacts) -> tuple[MemberFacts, ...]:
    """Return the member list of the freshest coordinator that knows one."""
    knowing = [one for one in cluster.answering if one.members]
    return max(knowing, key=lambda one: (one.revision, one.id)).members if knowing else ()


def _judge_member(member: MemberFacts, one: CoordinatorFacts | None, cluster: ClusterFacts) -> Iterator[Finding]:
    name = member.name or f"{member.id:x}"
    if not member.started:
        yield find("member-unstarted", name, ", ".join(member.peer_urls))
    elif one is None and member.answers is False:
        yield find("member-unanswered", name, f"member {member.id:x}", address=", ".join(member.peer_urls))
    elif one is not None and one.store is None and one.phase not in WAITING and not member.learner:
        yield find("member-down", name, one.store_error, _words(one))
    elif one is None and not member.learner and name not in {other.id for other in cluster.coordinators}:
        yield find("coordinator-silent", name, "no address of its API is known; its raft port answers")
    elif member.learner:
        behind = newest_index(cluster) - (one.store.applied_index if one and one.store else 0)
        if one is None or behind > 0:
            yield find("learner-stuck", name, ", ".join(member.peer_urls), behind=max(0, behind))


def newest_index(cluster: ClusterFacts) -> int:
    return max((one.store.raft_index for one in cluster.answering if one.store), default=0)


def _words(one: CoordinatorFacts) -> str:
    return f"{one.etcd_last_exit}: {one.etcd_last_words}".strip(": ")


def judge_each(cluster: ClusterFacts) -> Iterator[Finding]:
    """What each coordinator's own report says of its member."""
    newest, listed = newest_index(cluster), {member.id for member in list_members(cluster)}
    ailments = dict(entry for one in cluster.answering for entry in one.ailments)
    for one in cluster.answering:
        store = one.store
        if one.etcd_phase == "removed" or (store and listed and store.member_id and store.member_id not in listed):
            yield find("member-removed", one.id, _words(one))
        if store and not store.learner and newest - store.applied_index > BEHIND_MAX:
            yield find("member-lagging", one.id, f"applied {store.applied_index} of {newest}",
                       behind=newest - store.applied_index)  # fmt: skip
        if one.etcd_restarts > RESTARTS_MAX:
            yield find("etcd-restarts", one.id, _words(one), count=one.etcd_restarts)
    for coordinator_id, words in sorted(ailments.items()):
        yield find("ailing", coordinator_id, words=words)
    profiles = {one.id: one.profile for one in cluster.answering if one.profile}
    if len(set(profiles.values())) > 1:
        yield find("profiles-differ", "", *(f"{id}: {profile}" for id, profile in sorted(profiles.items())))


def judge_versions(cluster: ClusterFacts) -> Iterator[Finding]:
    """What runs, and whether it may run together."""
    running = {one.id: one.version for one in cluster.answering if one.version}
    if len(set(running.values())) > 1:
        yield find("version-skew", "", *_each(running), versions=", ".join(sorted(set(running.values()))))
    yield from _judge_level(running, cluster.feature_level)
    stores = {one.id: one.etcd_version for one in cluster.answering if one.etcd_version}
    minors = sorted({parsed[:2] for version in stores.values() if (parsed := parse_version(version))})
    if minors and (minors[0][0] != minors[-1][0] or minors[-1][1] - minors[0][1] > 1):
        yield find("etcd-skew", "", *_each(stores), versions=", ".join(sorted(set(stores.values()))))
    for one in cluster.answering:
        if one.etcd_verdict in _VERDICTS:
            yield find(_VERDICTS[one.etcd_verdict], one.id, version=one.etcd_version, reason=one.etcd_reason)


def _judge_level(running: dict[str, str], level: str) -> Iterator[Finding]:
    held = parse_level(level)
    minors = [parsed[:2] for version in running.values() if (parsed := parse_version(version))]
    if held and minors and min(minors) > held:
        yield find("upgrade-unfinished", "", version=write_level(min(minors)), level=level)


def _each(versions: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{id}: {version}" for id, version in sorted(versions.items()))
