"""From facts to findings: every rule asked, the worst first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cloudless.core.diagnosis.cluster_rules import (
    judge_clocks,
    judge_leading,
    judge_links,
    judge_nodes,
    judge_reach,
    judge_state,
    judge_unity,
)
from cloudless.core.diagnosis.datadir_rules import judge_datadir
from cloudless.core.diagnosis.facts import ClusterFacts, Facts
from cloudless.core.diagnosis.finding import Finding, Severity
from cloudless.core.diagnosis.host_rules import judge_host, judge_newcomer
from cloudless.core.diagnosis.kinds import find
from cloudless.core.diagnosis.member_rules import judge_each, judge_members, judge_versions
from cloudless.core.diagnosis.space_rules import judge_disks, judge_store_space

OPEN_FILES_MIN = 4_096

_CLUSTER_RULES: tuple[Callable[[ClusterFacts], Iterator[Finding]], ...] = (
    judge_reach,
    judge_unity,
    judge_leading,
    judge_members,
    judge_each,
    judge_links,
    judge_state,
    judge_store_space,
    judge_disks,
    judge_versions,
    judge_nodes,
    judge_clocks,
)


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Return all findings, troubles first; the same facts give the same findings."""
    found: list[Finding] = []
    if facts.cluster and (facts.cluster.answering or not (facts.host and facts.host.role)):
        for rule in _CLUSTER_RULES:
            found += rule(facts.cluster)
        found += _judge_limits(facts.cluster)
    if facts.datadir:
        found += judge_datadir(facts.datadir)
    if facts.host:
        found += judge_host(facts.host)
    if facts.host and facts.host.role and facts.cluster:
        found += judge_newcomer(facts.host, facts.cluster)
    return tuple(sorted(dict.fromkeys(found), key=lambda finding: finding.severity.rank))


def is_sick(findings: tuple[Finding, ...]) -> bool:
    """Return whether anything is in trouble."""
    return any(finding.severity is Severity.TROUBLE for finding in findings)


def _judge_limits(cluster: ClusterFacts) -> Iterator[Finding]:
    for one in cluster.answering:
        if 0 < one.open_files_max < OPEN_FILES_MIN:
            yield find("open-files", one.id, limit=one.open_files_max)
