"""Records about the cluster itself: its identity, its coordinators, who leads and who is doubted."""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.model.evolving import Evolving


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord(Evolving):
    """The cluster's identity, written once by the first leader. Only `feature_level` changes, and only upwards.

    `id` is a random name for people and agents; etcd's own cluster id is a different number. `feature_level` is the
    minor version ("1.4") whose features may be used; see `core.versions`.
    """

    id: str
    created_at_ms: int = 0
    created_by: str = ""
    feature_level: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorRecord(Evolving):
    """A living coordinator's addresses; stored under its session lease, so it goes when the coordinator does.

    Addresses are `host:port` as others can reach them. `member_id` is etcd's id of the member this
    coordinator supervises.
    """

    id: str
    api_address: str = ""
    http_address: str = ""
    metrics_address: str = ""
    raft_address: str = ""
    member_id: int = 0
    version: str = ""
    etcd_version: str = ""
    pid: int = 0
    started_at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderRecord(Evolving):
    """A place in the election's queue: the key with the lowest create revision leads, and that revision is its term."""

    coordinator_id: str
    campaigned_at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion(Evolving):
    """One coordinator's word that it has lost the leader of `term`; a majority of them deposes it."""

    coordinator_id: str
    term: int
