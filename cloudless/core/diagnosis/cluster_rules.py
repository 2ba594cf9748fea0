"""Rules about the coordinators as a whole: who answers, whether they are one cluster, have a quorum and a leader.

Each rule yields findings from facts and knows nothing of the others. A rule that would only repeat another's finding in
other words keeps silent (a silent coordinator is not also a missing link).
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudless.core.diagnosis.amounts import duration
from cloudless.core.diagnosis.facts import ClusterFacts, CoordinatorFacts
from cloudless.core.diagnosis.finding import Finding
from cloudless.core.diagnosis.kinds import find

ELECTIONS_MAX = 4
STALE_S = 3.0
CLOCK_OFFSET_MAX_S = 1.0
WAITING = ("fresh", "forming", "lost")
EVIDENCE_MAX = 8


def judge_reach(cluster: ClusterFacts) -> Iterator[Finding]:
    """Who was asked and did not answer. A coordinator known by its id is silent; an address alone is unanswered."""
    if not cluster.answering and not any(one.denied for one in cluster.coordinators):
        tried = tuple(f"{one.address}: {one.error}" for one in cluster.coordinators)
        yield find("no-coordinator", "", *tried[:EVIDENCE_MAX])
    for one in cluster.coordinators:
        if one.denied:
            yield find("denied", one.id or one.address, one.error)
        elif one.foreign:
            yield find("not-a-coordinator", one.address, one.error)
        elif one.error and one.id:
            yield find("coordinator-silent", one.id, f"{one.address}: {one.error}")
        elif one.error and one.listed and cluster.answering and not _explained(cluster):
            yield find("address-unanswered", one.address, one.error)


def _explained(cluster: ClusterFacts) -> bool:
    """Whether the silent addresses are those of coordinators that are named already as silent or unanswered members."""
    named = sum(bool(one.error and one.id) for one in cluster.coordinators)
    unanswered = {member.name for one in cluster.answering for member in one.members if member.answers is False}
    nameless = sum(bool(one.error and not one.id and not one.foreign) for one in cluster.coordinators)
    return not named and 0 < nameless <= len(unanswered)


def judge_unity(cluster: ClusterFacts) -> Iterator[Finding]:
    """Whether all that answer belong to one cluster, and to any."""
    for one in cluster.answering:
        if one.phase in WAITING:
            yield find("waiting-to-form", one.id or one.address, one.waiting_for or f"its phase is {one.phase}")
    stores = {one.etcd_cluster_id for one in cluster.answering if one.etcd_cluster_id}
    names = {one.cluster_id for one in cluster.answering if one.cluster_id}
    if len(stores) > 1 or len(names) > 1:
        seen = (f"{one.id} at {one.address}: cluster {one.cluster_id or '-'}, etcd {one.etcd_cluster_id:x}"
                for one in cluster.answering if one.etcd_cluster_id)  # fmt: skip
        yield find("two-clusters", "", *sorted(seen))


def judge_leading(cluster: ClusterFacts) -> Iterator[Finding]:
    """Quorum, leader, and how often it changes."""
    belonging = [one for one in cluster.answering if one.phase not in WAITING]
    if not belonging:
        return
    if not any(one.store and one.store.leader_id for one in belonging) and any(_cut_off(one) for one in belonging):
        yield _no_quorum(cluster, belonging)
    elif not any(one.leader_id for one in belonging):
        yield find("no-leader", "", *(f"{one.id} sees no leader at revision {one.revision}" for one in belonging))
    if cluster.elections > ELECTIONS_MAX:
        minutes = round(cluster.elections_within_s / 60)
        terms = sorted({one.term for one in belonging})
        yield find("leader-flapping", "", f"terms now: {', '.join(map(str, terms))}", count=cluster.elections,
                   minutes=minutes)  # fmt: skip


def _cut_off(one: CoordinatorFacts) -> bool:
    return one.health == "unavailable" or one.staleness_s > STALE_S or one.staleness_s < 0 or one.store is None


def _no_quorum(cluster: ClusterFacts, belonging: list[CoordinatorFacts]) -> Finding:
    members = max((one.members for one in belonging), key=len)
    voters = [member for member in members if not member.learner]
    here = {one.id for one in belonging if one.store}
    missing = sorted(member.name or f"{member.id:x}" for member in voters if member.name not in here)
    seen = [f"{one.id}: {one.store_error or 'its etcd knows no leader'}, state {_age(one)}" for one in belonging]
    return find("no-quorum", "", *seen, living=len(here), voters=len(voters) or "its",
                missing=", ".join(missing) or "see the silent ones")  # fmt: skip


def _age(one: CoordinatorFacts) -> str:
    return "not loaded" if one.staleness_s < 0 else f"{duration(one.staleness_s)} old"


def judge_links(cluster: ClusterFacts) -> Iterator[Finding]:
    """Coordinators that answer us but not each other."""
    here = {one.id for one in cluster.answering if one.id}
    for one in cluster.answering:
        missing = sorted((here & set(one.known)) - {one.id, *one.linked})
        if missing:
            yield find("links-missing", one.id, f"linked: {', '.join(sorted(one.linked)) or 'nobody'}",
                       missing=", ".join(missing))  # fmt: skip


def judge_state(cluster: ClusterFacts) -> Iterator[Finding]:
    """Whether the states are equal, fresh and readable."""
    yield from _digests(cluster)
    quorate = any(one.store and one.store.leader_id for one in cluster.answering)
    for one in cluster.answering:
        if quorate and one.staleness_s > STALE_S:
            yield find("stale", one.id, one.store_error, staleness=duration(one.staleness_s))
    quarantine = dict(entry for one in cluster.answering for entry in one.quarantine)
    if quarantine:
        seen = tuple(f"{key}: {reason}" for key, reason in sorted(quarantine.items()))
        yield find("quarantined", "", *seen[:EVIDENCE_MAX], count=len(quarantine))


def _digests(cluster: ClusterFacts) -> Iterator[Finding]:
    by_revision: dict[int, dict[str, str]] = {}
    for one in cluster.answering:
        if one.digest and one.digest_revision:
            by_revision.setdefault(one.digest_revision, {})[one.id] = one.digest
    for revision, digests in sorted(by_revision.items()):
        if len(set(digests.values())) > 1:
            seen = (f"{id}: {digest}" for id, digest in sorted(digests.items()))
            yield find("digest-differs", "", *seen, revision=revision)


def judge_nodes(cluster: ClusterFacts) -> Iterator[Finding]:
    """Whether there is anywhere to run tasks, as the freshest coordinator sees it."""
    served = [one for one in cluster.answering if one.health and one.health != "unavailable"]
    if not served:
        return
    freshest = max(served, key=lambda one: (one.revision, one.id))
    total, ready = freshest.nodes_total, freshest.nodes_ready
    if ready == 0 and (total or freshest.workloads_total):
        yield find("no-ready-node", "", f"{freshest.workloads_total} workloads", total=total)
    elif ready < total:
        yield find("nodes-offline", "", away=total - ready, total=total)


def judge_clocks(cluster: ClusterFacts) -> Iterator[Finding]:
    """Clocks that differ by more than a second, and than what asking took."""
    for one in cluster.answering:
        offset_s = one.clock_offset_s
        if offset_s is not None and abs(offset_s) > CLOCK_OFFSET_MAX_S + one.clock_uncertainty_s:
            yield find("clock-skew", one.id, f"{offset_s:+.1f} s, give or take {one.clock_uncertainty_s:.1f} s",
                       offset=duration(abs(offset_s)), direction="ahead" if offset_s > 0 else "behind")  # fmt: skip
