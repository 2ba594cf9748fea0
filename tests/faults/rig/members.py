"""The members of a trial's cluster: who they are, that one was replaced and no other, and how another joins."""

from __future__ import annotations

from cloudless.cli.methods import LIST_MEMBERS
from cloudless.rpc.v1.cluster_pb2 import ListMembersRequest, Member
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster


def members(cluster: LocalCluster, *via: str) -> list[Member]:
    return list(cluster.call(LIST_MEMBERS, ListMembersRequest(), *via).members)


def member_ids(cluster: LocalCluster, *via: str) -> dict[str, int]:
    return {member.name: member.id for member in members(cluster, *via)}


def roles(cluster: LocalCluster, *via: str) -> dict[str, str]:
    """Return "learner" or "voter" by name; a member that has not started has the name ""."""
    return {member.name: "learner" if member.learner else "voter" for member in members(cluster, *via)}


def raft_leader(cluster: LocalCluster, *via: str) -> str:
    """Return the coordinator whose etcd leads; "" if none does."""
    return next((member.name for member in members(cluster, *via) if member.raft_leader), "")


def assert_replaced(cluster: LocalCluster, name: str, before: dict[str, int], aside: str = "") -> None:
    """The member is a new one, the others are the old ones; data that were doubted are kept under this word."""
    after = member_ids(cluster)
    assert after[name] != before[name]
    assert {n: id for n, id in after.items() if n != name} == {n: id for n, id in before.items() if n != name}
    assert not aside or list(cluster.processes[name].data_dir.glob(f"etcd.{aside}-*"))


def add_joiner(trial: Trial, name: str, through: str) -> str:
    """Declare one more coordinator that joins through another; the oracles will ask it, too."""
    trial.cluster.add_coordinators([name])
    joiner = trial.cluster.processes[name]
    joiner.settings["RAFT_JOIN_ADDR"] = trial.cluster.processes[through].address()
    trial.load.also_at(name, joiner.address())
    return name


def assert_members_agree(cluster: LocalCluster, via: str) -> None:
    """What `cluster members` tells is what etcd itself tells, whatever is under way."""

    def told_alike() -> bool:
        of_etcd = {(m.id, m.name, m.is_learner, tuple(m.peer_urls)) for m in cluster.members(via)}
        return of_etcd == {(m.id, m.name, m.learner, tuple(m.peer_urls)) for m in members(cluster, via)}

    cluster.until(told_alike, "etcd and cloudless tell the same members", 5.0)
