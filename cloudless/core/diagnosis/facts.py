"""What is known when a diagnosis is made: plain values, gathered by someone else.

Everything may be missing, because the sick cannot be asked for everything: None, "" and -1 say "not known", and no
rule takes "not known" for "well" or for "ill". What could not be reached is a fact too (`error`).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """One etcd member by its own word. `quota_bytes` and `leader_id` are 0 when not known or none."""

    member_id: int = 0
    cluster_id: int = 0
    version: str = ""
    size_bytes: int = 0
    in_use_bytes: int = 0
    quota_bytes: int = 0
    leader_id: int = 0
    raft_term: int = 0
    raft_index: int = 0
    applied_index: int = 0
    learner: bool = False
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFacts:
    """One entry of etcd's member list. `answers`: whether anything listens at its raft address; None: not tried."""

    id: int
    name: str = ""
    peer_urls: tuple[str, ...] = ()
    learner: bool = False
    started: bool = True
    raft_leader: bool = False
    answers: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """A file system. `fsync_p99_ms`: a durable write of 4 KiB; 0: not measured."""

    path: str = ""
    free_bytes: int = -1
    total_bytes: int = -1
    free_inodes: int = -1
    total_inodes: int = -1
    fsync_p50_ms: float = 0.0
    fsync_p99_ms: float = 0.0
    writable: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorFacts:
    """One coordinator, asked at `address`. `error` is why it did not answer; `foreign`: something else answered;
    `denied`: it did not let us in; `listed`: a person named that address.

    `clock_offset_s` is its wall clock minus ours, give or take `clock_uncertainty_s`. `etcd_verdict` is the version
    gate's word: "ok", "warn", "degraded", "refused" or "".
    """

    address: str
    error: str = ""
    foreign: bool = False
    denied: bool = False
    listed: bool = True
    id: str = ""
    version: str = ""
    feature_level: str = ""
    etcd_version: str = ""
    etcd_verdict: str = ""
    etcd_reason: str = ""
    phase: str = ""
    waiting_for: str = ""
    health: str = ""
    staleness_s: float = 0.0
    leader_id: str = ""
    term: int = 0
    cluster_id: str = ""
    etcd_cluster_id: int = 0
    revision: int = 0
    digest: str = ""
    digest_revision: int = 0
    linked: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    ailments: tuple[tuple[str, str], ...] = ()
    quarantine: tuple[tuple[str, str], ...] = ()
    nodes_total: int = 0
    nodes_ready: int = 0
    workloads_total: int = 0
    members: tuple[MemberFacts, ...] = ()
    store: StoreFacts | None = None
    store_error: str = ""
    disk: DiskFacts | None = None
    profile: str = ""
    clock_offset_s: float | None = None
    clock_uncertainty_s: float = 0.0
    etcd_phase: str = ""
    etcd_restarts: int = 0
    etcd_last_exit: str = ""
    etcd_last_words: str = ""
    quota_hours_left: float = -1.0
    refuses_writes: str = ""
    hygiene: str = ""
    open_files_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """All coordinators that were asked, and how often a leader was elected lately (-1: not known)."""

    coordinators: tuple[CoordinatorFacts, ...] = ()
    elections: int = -1
    elections_within_s: float = 0.0

    @property
    def answering(self) -> tuple[CoordinatorFacts, ...]:
        return tuple(one for one in self.coordinators if not one.error)

    @property
    def feature_level(self) -> str:
        """The feature level by the freshest word; "" if nobody tells it."""
        telling = [one for one in self.answering if one.feature_level]
        return max(telling, key=lambda one: (one.revision, one.id)).feature_level if telling else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDirFacts:
    """One coordinator's data directory, looked at without its coordinator. Ids are hexadecimal text, "" if unknown.

    `state` is what marker and log say together: fresh, forming, present, lost, foreign, or "" (unreadable).
    `owner`: who holds its lock. `orphan_pid`: an etcd that runs on it. `expected_id`: whose directory it should be.
    """

    path: str
    exists: bool = True
    error: str = ""
    state: str = ""
    marker_error: str = ""
    node_id: str = ""
    expected_id: str = ""
    member_id: str = ""
    cluster_id: str = ""
    last_etcd_version: str = ""
    etcd_version: str = ""
    owner: str = ""
    orphan_pid: int = 0
    shortfall: str = ""
    doubt: str = ""
    mode: int = 0o700
    owned_by: str = ""
    asides: tuple[tuple[str, int], ...] = ()
    strays: tuple[str, ...] = ()
    log_last_words: str = ""
    removed: bool = False
    db_bytes: int = -1
    wal_bytes: int = -1
    loose: tuple[str, ...] = ()
    disk: DiskFacts = field(default_factory=DiskFacts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFacts:
    """One port this node will need. `taken_by` is "" while it is free."""

    purpose: str
    address: str
    taken_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """This machine. -1 and None: not known. `role`: what is to run here, "coordinator", "agent" or "".

    `stores`: the etcd members that run here, by data directory, asked directly. `node_id` and `version` are those of
    the new node, `founds` whether it may found a cluster instead of joining one.
    """

    role: str = ""
    memory_bytes: int = -1
    memory_free_bytes: int = -1
    memory_limit_bytes: int = -1
    cpus: float = -1.0
    swap_used_bytes: int = -1
    open_files_max: int = -1
    clock_synchronised: bool | None = None
    etcd_path: str = ""
    etcd_version: str = ""
    etcd_verdict: str = ""
    etcd_reason: str = ""
    etcd_missing: str = ""
    settings_problems: tuple[str, ...] = ()
    ports: tuple[PortFacts, ...] = ()
    disk: DiskFacts | None = None
    names_unresolved: tuple[str, ...] = ()
    advertises_loopback: tuple[str, ...] = ()
    orphans: tuple[tuple[int, str], ...] = ()
    stores: tuple[tuple[str, StoreFacts], ...] = ()
    node_id: str = ""
    version: str = ""
    founds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything looked at. A part that was not looked at is None."""

    cluster: ClusterFacts | None = None
    host: HostFacts | None = None
    datadir: DataDirFacts | None = None
