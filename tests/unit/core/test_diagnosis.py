"""Every finding there is, made from planted facts; and a healthy cluster, of which nothing is said."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cloudless.core.diagnosis import (
    GROUPS,
    KINDS,
    ClusterFacts,
    CoordinatorFacts,
    DataDirFacts,
    DiskFacts,
    Facts,
    HostFacts,
    MemberFacts,
    PortFacts,
    Severity,
    StoreFacts,
    diagnose,
    is_sick,
)
from cloudless.core.diagnosis.amounts import duration, size

GIB = 1 << 30
IDS = ("c1", "c2", "c3")
MEMBERS = tuple(
    MemberFacts(id=number, name=id, peer_urls=(f"http://{id}:3000",), raft_leader=number == 2)
    for number, id in enumerate(IDS, 1)
)
DISK = DiskFacts(
    path="/data", free_bytes=50 * GIB, total_bytes=100 * GIB, free_inodes=900, total_inodes=1000, fsync_p99_ms=3.0
)
STORE = StoreFacts(
    member_id=1, cluster_id=9, version="3.5.33", size_bytes=20 << 20, in_use_bytes=15 << 20, quota_bytes=2 * GIB,
    leader_id=2, raft_term=4, raft_index=1000, applied_index=1000,
)  # fmt: skip
DATA = DataDirFacts(
    path="/data", state="present", node_id="c1", expected_id="c1", member_id="1", cluster_id="9", disk=DISK,
    etcd_version="3.5.33", last_etcd_version="3.5.33", db_bytes=1, wal_bytes=1,
)  # fmt: skip
HOST = HostFacts(
    memory_bytes=8 * GIB, memory_free_bytes=4 * GIB, swap_used_bytes=0, open_files_max=65536, clock_synchronised=True,
    etcd_path="/usr/bin/etcd", etcd_version="3.5.33", etcd_verdict="ok", disk=DISK,
)  # fmt: skip

NEW = replace(HOST, role="coordinator", node_id="c4", version="1.2.3")


def coordinator(number: int, **changes: Any) -> CoordinatorFacts:
    id = IDS[number - 1]
    facts = CoordinatorFacts(
        address=f"{id}:8080", id=id, version="1.2.0", etcd_version="3.5.33", etcd_verdict="ok", phase="member",
        health="ok", staleness_s=0.1, leader_id="c1", term=70, cluster_id="kl", etcd_cluster_id=9, revision=500,
        digest="abcd", digest_revision=500, linked=tuple(other for other in IDS if other != id), known=IDS,
        nodes_total=2, nodes_ready=2, workloads_total=3, members=MEMBERS, store=replace(STORE, member_id=number),
        disk=DISK, profile="default", clock_offset_s=0.01, etcd_phase="running", open_files_max=65536,
    )  # fmt: skip
    return replace(facts, **changes)


def cluster(*changed: CoordinatorFacts, **changes: Any) -> Facts:
    """Return a healthy cluster but for the coordinators given, and with `changes` to all others."""
    by_id = {one.id: one for one in changed}
    ones = [by_id.get(id) or coordinator(number, **changes) for number, id in enumerate(IDS, 1)]
    others = [one for one in changed if one.id not in IDS]
    return Facts(cluster=ClusterFacts(coordinators=(*ones, *others), elections=1, elections_within_s=600.0))


def all_are(**changes: Any) -> Facts:
    return cluster(**changes)


def data(**changes: Any) -> Facts:
    return Facts(datadir=replace(DATA, **changes))


def host(**changes: Any) -> Facts:
    return Facts(host=replace(HOST, **changes))


def silent(number: int, error: str = "connection refused") -> CoordinatorFacts:
    return CoordinatorFacts(address=f"c{number}:8080", id=f"c{number}", error=error)


def store(**changes: Any) -> StoreFacts:
    return replace(STORE, **changes)


NO_LEADER = store(leader_id=0)
ALARM = ("NOSPACE of 1",)
LEARNER = (*MEMBERS, MemberFacts(id=4, name="c4", peer_urls=("http://c4:3000",), learner=True, answers=True))
UNSTARTED = (*MEMBERS, MemberFacts(id=4, peer_urls=("http://c4:3000",), learner=True, started=False))
DEAD = (*MEMBERS[:2], replace(MEMBERS[2], answers=False))

PLANTED: dict[str, Callable[[], Facts]] = {
    "no-coordinator": lambda: Facts(cluster=ClusterFacts(coordinators=(replace(silent(1), id=""),))),
    "coordinator-silent": lambda: cluster(silent(3)),
    "address-unanswered": lambda: cluster(CoordinatorFacts(address="nowhere:8080", error="refused")),
    "denied": lambda: cluster(CoordinatorFacts(address="c3:8080", id="c3", error="a viewer may", denied=True)),
    "not-a-coordinator": lambda: cluster(CoordinatorFacts(address="web:80", error="not gRPC", foreign=True)),
    "waiting-to-form": lambda: cluster(coordinator(3, phase="fresh", waiting_for="waiting to join", health="")),
    "two-clusters": lambda: cluster(coordinator(3, etcd_cluster_id=77, cluster_id="other")),
    "no-quorum": lambda: cluster(
        coordinator(1, store=NO_LEADER, health="unavailable", staleness_s=30.0, leader_id=""), silent(2), silent(3)
    ),
    "no-leader": lambda: all_are(leader_id="", term=0),
    "leader-flapping": lambda: Facts(cluster=replace(_whole(), elections=9)),
    "links-missing": lambda: cluster(coordinator(1, linked=("c2",))),
    "member-down": lambda: cluster(coordinator(3, store=None, store_error="etcd gave no answer", health="")),
    "member-unanswered": lambda: cluster(silent(3), members=DEAD),
    "member-unstarted": lambda: all_are(members=UNSTARTED),
    "learner-stuck": lambda: all_are(members=LEARNER),
    "member-lagging": lambda: cluster(coordinator(3, store=store(member_id=3, raft_index=100, applied_index=100)),
                                      store=store(raft_index=9000, applied_index=9000, member_id=1)),
    "member-removed": lambda: cluster(coordinator(3, etcd_phase="removed")),
    "few-voters": lambda: all_are(members=MEMBERS[:2]),
    "even-voters": lambda: all_are(members=(*MEMBERS, MemberFacts(id=4, name="c1"))),
    "etcd-restarts": lambda: cluster(coordinator(3, etcd_restarts=12, etcd_last_words="panic")),
    "profiles-differ": lambda: cluster(coordinator(3, profile="wan")),
    "ailing": lambda: cluster(coordinator(1, ailments=(("c3", "has no etcd: exit code 1"),))),
    "nospace": lambda: all_are(store=store(alarms=ALARM)),
    "writes-refused": lambda: all_are(refuses_writes="full", store=store(in_use_bytes=1900 << 20)),
    "near-quota": lambda: all_are(store=store(size_bytes=1600 << 20, in_use_bytes=1500 << 20)),
    "quota-forecast": lambda: all_are(quota_hours_left=5.0),
    "fragmented": lambda: all_are(store=store(size_bytes=200 << 20)),
    "corrupt": lambda: all_are(store=store(alarms=("CORRUPT of 1",))),
    "version-skew": lambda: cluster(coordinator(3, version="1.3.0")),
    "upgrade-unfinished": lambda: all_are(version="1.3.1", feature_level="1.2"),
    "etcd-skew": lambda: cluster(coordinator(3, etcd_version="3.7.1")),
    "etcd-refused": lambda: cluster(coordinator(3, etcd_version="3.5.4", etcd_verdict="refused", etcd_reason="lossy")),
    "etcd-degraded": lambda: cluster(coordinator(3, etcd_verdict="degraded", etcd_reason="lost events")),
    "etcd-old": lambda: cluster(coordinator(3, etcd_verdict="warn", etcd_reason="ended")),
    "digest-differs": lambda: cluster(coordinator(3, digest="ffff")),
    "quarantined": lambda: all_are(quarantine=(("workloads/default/x", "newer format"),)),
    "no-ready-node": lambda: all_are(nodes_ready=0),
    "nodes-offline": lambda: all_are(nodes_ready=1),
    "stale": lambda: cluster(coordinator(3, staleness_s=12.0)),
    "clock-skew": lambda: cluster(coordinator(3, clock_offset_s=-65.0)),
    "disk-full": lambda: cluster(coordinator(3, disk=replace(DISK, free_bytes=100 << 20))),
    "disk-low": lambda: cluster(coordinator(3, disk=replace(DISK, free_bytes=4 * GIB))),
    "inodes-low": lambda: cluster(coordinator(3, disk=replace(DISK, free_inodes=10))),
    "slow-fsync": lambda: cluster(coordinator(3, disk=replace(DISK, fsync_p50_ms=40.0))),
    "read-only": lambda: host(disk=replace(DISK, writable=False)),
    "datadir-missing": lambda: data(exists=False),
    "datadir-unreadable": lambda: data(error="permission denied"),
    "data-lost": lambda: data(state="lost"),
    "data-foreign": lambda: data(state="foreign", node_id=""),
    "data-of-another": lambda: data(node_id="c2"),
    "data-outdated": lambda: data(shortfall="ends at 5, had reached 9"),
    "data-doubted": lambda: data(doubt="a majority has another digest"),
    "marker-unreadable": lambda: data(marker_error="unknown format", state="", node_id=""),
    "permissions": lambda: data(mode=0o755),
    "wrong-owner": lambda: data(owned_by="nobody"),
    "put-aside": lambda: data(asides=(("/data/etcd.outdated-0a", 5 << 20),)),
    "strays": lambda: data(strays=("holiday.jpg",)),
    "orphaned-etcd": lambda: data(orphan_pid=12),
    "etcd-older-than-data": lambda: data(last_etcd_version="3.6.1"),
    "etcd-said": lambda: data(log_last_words="walpb: crc mismatch"),
    "in-use": lambda: data(owner="pid 4 on here", orphan_pid=12),
    "settings-refused": lambda: host(settings_problems=("CLOUDLESS_NODEID: is not a known setting",)),
    "nobody-to-join": lambda: Facts(host=NEW, cluster=ClusterFacts(coordinators=(silent(1),))),
    "id-taken": lambda: replace(cluster(), host=replace(NEW, node_id="c2")),
    "version-apart": lambda: replace(cluster(), host=replace(NEW, etcd_version="3.7.1")),
    "port-taken": lambda: host(ports=(PortFacts(purpose="the API", address="0.0.0.0:8080", taken_by="pid 3"),)),
    "local-no-leader": lambda: host(stores=(("/data/etcd", NO_LEADER),)),
    "no-etcd": lambda: host(etcd_missing="PATH: has no etcd"),
    "memory-low": lambda: host(role="coordinator", memory_free_bytes=50 << 20),
    "memory-limit": lambda: host(role="agent", memory_limit_bytes=32 << 20),
    "swapping": lambda: host(swap_used_bytes=GIB),
    "open-files": lambda: host(open_files_max=1024),
    "clock-unsynchronised": lambda: host(clock_synchronised=False),
    "name-unresolved": lambda: host(names_unresolved=("nowhere:8080",)),
    "advertises-loopback": lambda: host(advertises_loopback=("127.0.0.1:8080",)),
}  # fmt: skip


def _whole() -> ClusterFacts:
    whole = cluster().cluster
    assert whole is not None
    return whole


def codes(facts: Facts) -> list[str]:
    return [finding.code for finding in diagnose(facts)]


@pytest.mark.parametrize(
    "facts", [cluster(), data(), host(), host(role="coordinator"), Facts(), replace(cluster(), host=NEW)]
)
def test_of_the_healthy_nothing_is_said(facts: Facts) -> None:
    assert codes(facts) == []


@pytest.mark.parametrize("code", KINDS)
def test_every_fault_is_named(code: str) -> None:
    found = [finding for finding in diagnose(PLANTED[code]()) if finding.code == code]
    assert found, codes(PLANTED[code]())
    for text in (found[0].says, found[0].cure):
        assert text
        assert "{" not in text
    assert is_sick(tuple(found)) is (found[0].severity is Severity.TROUBLE)


@pytest.mark.parametrize(
    ("code", "alone"),
    [
        ("coordinator-silent", True),
        ("member-unanswered", False),
        ("no-coordinator", True),
        ("clock-skew", True),
        ("nospace", True),
        ("writes-refused", True),
        ("two-clusters", True),
        ("no-leader", True),
        ("data-lost", True),
        ("nobody-to-join", True),
        ("id-taken", True),
        ("version-apart", True),
        ("data-foreign", True),
        ("in-use", True),
    ],
)
def test_one_fault_is_not_told_in_many_ways(code: str, alone: bool) -> None:
    others = set(codes(PLANTED[code]())) - {code}
    assert not others if alone else others <= {"coordinator-silent"}, others


def test_troubles_come_first() -> None:
    facts = replace(cluster(silent(3), quarantine=(("k", "r"),)), host=replace(HOST, etcd_verdict="warn"))
    ranks = [finding.severity.rank for finding in diagnose(facts)]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) > 1


def test_of_a_lost_quorum_the_missing_are_named() -> None:
    (found,) = [finding for finding in diagnose(PLANTED["no-quorum"]()) if finding.code == "no-quorum"]
    assert "1 of 3 voters answer" in found.says
    assert "c2, c3" in found.cure
    assert "cloudless cluster recover" in found.cure


def test_default_addresses_that_nobody_named_are_not_complained_of() -> None:
    stranger = CoordinatorFacts(address="127.0.0.1:8084", error="refused", listed=False)
    assert codes(cluster(stranger)) == []


def test_a_voter_whose_coordinator_has_no_address_is_missed_too() -> None:
    whole = _whole()
    facts = Facts(cluster=replace(whole, coordinators=whole.coordinators[:2]))
    assert codes(facts) == ["coordinator-silent"]


def test_who_founds_a_cluster_needs_nobody_to_join() -> None:
    facts = Facts(host=replace(NEW, founds=True), cluster=ClusterFacts(coordinators=(silent(1),)))
    assert codes(facts) == []


def test_an_offset_within_what_asking_took_is_no_skew() -> None:
    assert codes(cluster(coordinator(3, clock_offset_s=2.5, clock_uncertainty_s=2.0))) == []


# --- the table itself ---


def test_codes_are_stable_words_and_told_once() -> None:
    all_codes = [kind.code for _, kinds in GROUPS for kind in kinds]
    assert len(all_codes) == len(set(all_codes))
    assert all(set(code) <= {*string.ascii_lowercase, "-"} for code in all_codes)


def test_every_trouble_has_a_cure() -> None:
    assert all(kind.cure for kind in KINDS.values())


@pytest.mark.parametrize(("amount", "words"), [(0, "0 B"), (1536, "1.5 KiB"), (3 * GIB, "3.0 GiB")])
def test_sizes_read_well(amount: int, words: str) -> None:
    assert size(amount) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.25, "250 ms"), (60, "60 s"), (600, "10 min"), (36_000, "10 h"), (300_000, "3 days")]
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert duration(seconds) == words
