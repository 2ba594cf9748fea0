"""A coordinator comes back with data of yesterday, with a log cut short, or at another address."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cloudless.adapters.member.progress import Progress
from cloudless.adapters.member.wal import last_index
from cloudless.cli.methods import GET_WORKLOAD, UPDATE_MEMBER
from cloudless.errors import FormationRefused, InvalidSpec, NotFound
from cloudless.rpc.v1.cluster_pb2 import UpdateMemberRequest
from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest
from etcd.find import Found
from tests.integration.cluster import COORDINATORS, HOST, LocalCluster, free_ports, manifest_of
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FIRST, SECOND, THIRD = COORDINATORS
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    """A running cluster that was founded together; a test leaves it whole."""
    made = LocalCluster(tmp_path_factory.mktemp("returning"), binary.path)
    made.add_coordinators()
    made.found_together()
    made.start(*COORDINATORS)
    try:
        made.wait_formed()
        yield made
    finally:
        made.close()


def write(cluster: LocalCluster, count: int, *via: str) -> str:
    """Write workloads one after the other; return the last one's name."""
    for _ in range(count):
        name = f"written-{next(NUMBERS)}"
        cluster.apply(manifest_of(name, replicas=0), *via)
    return name


def ids(cluster: LocalCluster) -> dict[str, int]:
    return {member.name: member.id for member in cluster.members(FIRST)}


def noted(cluster: LocalCluster, name: str, of: str) -> int:
    """Return how far `name` has noted on disk that the member of `of` has got."""
    progress = Progress.read(cluster.datadir(name).progress)
    reached = progress.reached if name == of else progress.heard.get(of)
    return reached.raft_index if reached else 0


def wait_witnessed(cluster: LocalCluster, of: str, index: int) -> None:
    def noted_by_all() -> bool:
        return all(noted(cluster, name, of) > index for name in COORDINATORS)

    cluster.until(noted_by_all, f"all have noted that {of} is past {index}")


def waits_to_join(cluster: LocalCluster, name: str) -> bool:
    return "waiting to join" in cluster.tail(name, 20)


def assert_replaced(cluster: LocalCluster, name: str, before: dict[str, int], newest: str) -> None:
    cluster.wait_formed()
    after = ids(cluster)
    assert after[name] != before[name]
    assert {n: id for n, id in after.items() if n != name} == {n: id for n, id in before.items() if n != name}
    assert list(cluster.processes[name].data_dir.glob("etcd.outdated-*")), "the old data are kept aside"
    cluster.call(GET_WORKLOAD, GetWorkloadRequest(name=newest), name)
    cluster.assert_one_cluster()


@pytest.mark.parametrize("what", ["everything", "only-etcd"])
def test_an_old_copy_of_a_data_directory_is_put_aside_and_its_member_replaced(
    cluster: LocalCluster, tmp_path: Path, what: str
) -> None:
    before, data = ids(cluster), cluster.processes[THIRD].data_dir
    write(cluster, 5)
    cluster.stop(THIRD)
    shutil.copytree(data, tmp_path / "copy")
    old = last_index(cluster.datadir(THIRD).etcd_dir)
    cluster.start(THIRD)
    cluster.wait_formed()
    assert ids(cluster) == before, "its own data are good"
    newest = write(cluster, 20)
    wait_witnessed(cluster, THIRD, old)
    cluster.kill(THIRD, etcd=True)
    part = "" if what == "everything" else "etcd"
    shutil.rmtree(data / part)
    shutil.copytree(tmp_path / "copy" / part, data / part)
    cluster.start(THIRD)
    assert_replaced(cluster, THIRD, before, newest)


def test_where_too_many_are_old_copies_none_is_put_aside(cluster: LocalCluster, tmp_path: Path) -> None:
    before, old = ids(cluster), (FIRST, SECOND)
    directories = {name: cluster.processes[name].data_dir for name in old}
    cluster.stop(*COORDINATORS)
    reached = max(last_index(cluster.datadir(name).etcd_dir) for name in old)
    for name in old:
        shutil.copytree(directories[name], tmp_path / "yesterday" / name)
    cluster.start(*COORDINATORS)
    cluster.wait_formed()
    newest = write(cluster, 20)
    for name in old:
        wait_witnessed(cluster, name, reached + 10)
    cluster.kill(*COORDINATORS, etcd=True)
    for name in old:
        shutil.move(directories[name], tmp_path / "today" / name)
        shutil.copytree(tmp_path / "yesterday" / name, directories[name])
    aside = {name: set(directories[name].glob("etcd.outdated-*")) for name in old}
    cluster.start(*COORDINATORS)
    for name in old:
        cluster.until(partial(waits_to_join, cluster, name), f"{name} waits to be let in")
        assert last_index(cluster.datadir(name).etcd_dir) > 0, "its data are where they were"
        assert set(directories[name].glob("etcd.outdated-*")) == aside[name]
    cluster.kill(*COORDINATORS, etcd=True)
    for name in old:
        shutil.rmtree(directories[name])
        shutil.move(tmp_path / "today" / name, directories[name])
    cluster.start(*COORDINATORS)
    cluster.wait_formed()
    assert ids(cluster) == before, "once their data of today are back, all is well"
    cluster.call(GET_WORKLOAD, GetWorkloadRequest(name=newest), FIRST)
    cluster.assert_one_cluster()


def test_a_log_cut_short_is_not_started_again(cluster: LocalCluster) -> None:
    before, datadir = ids(cluster), cluster.datadir(SECOND)
    newest = write(cluster, 20)
    wait_witnessed(cluster, SECOND, 0)
    cluster.kill(SECOND, etcd=True)
    segment = max((datadir.etcd_dir / "member" / "wal").glob("*.wal"))
    content = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(content[: len(content) // 2])
    assert last_index(datadir.etcd_dir) < noted(cluster, SECOND, SECOND)
    cluster.start(SECOND)
    assert_replaced(cluster, SECOND, before, newest)


def test_whoever_was_killed_in_the_middle_of_writing_comes_back_as_the_same_member(cluster: LocalCluster) -> None:
    before = ids(cluster)
    for name in COORDINATORS:
        write(cluster, 10)
        cluster.kill(name, etcd=True)
        cluster.start(name)
        cluster.wait_formed()
    assert ids(cluster) == before


def test_all_of_them_killed_at_once_come_back_as_the_same_members(cluster: LocalCluster) -> None:
    before = ids(cluster)
    write(cluster, 10)
    cluster.kill(*COORDINATORS, etcd=True)
    cluster.start(*COORDINATORS)
    cluster.wait_formed()
    assert ids(cluster) == before


def test_a_coordinator_started_at_another_raft_address_stays_the_same_member(cluster: LocalCluster) -> None:
    before, third = ids(cluster), cluster.processes[THIRD]
    wait_witnessed(cluster, THIRD, 0)
    cluster.stop(THIRD)
    newest = write(cluster, 5, FIRST, SECOND)
    third.ports["raft"] = free_ports(1)[0]
    third.settings["RAFT_ADDR"] = third.address("raft")
    cluster.start(THIRD)
    cluster.wait_formed()
    assert ids(cluster) == before
    told = {member.name: member.peer_urls for member in cluster.members(FIRST)}
    assert told[THIRD] == (f"http://{third.address('raft')}",)
    cluster.call(GET_WORKLOAD, GetWorkloadRequest(name=newest), THIRD)
    cluster.assert_one_cluster()


def test_a_members_new_address_is_checked_before_the_cluster_takes_it(cluster: LocalCluster) -> None:
    with pytest.raises(NotFound, match="no member belongs to stranger"):
        cluster.call(UPDATE_MEMBER, UpdateMemberRequest(coordinator_id="stranger", raft_address=f"{HOST}:1"))
    with pytest.raises(InvalidSpec, match="raft_address"):
        cluster.call(UPDATE_MEMBER, UpdateMemberRequest(coordinator_id=THIRD, raft_address="here"))
    taken = cluster.processes[SECOND].address("raft")
    with pytest.raises(FormationRefused, match=f"belongs to {SECOND}"):
        cluster.call(UPDATE_MEMBER, UpdateMemberRequest(coordinator_id=THIRD, raft_address=taken))
    same = UpdateMemberRequest(coordinator_id=THIRD, raft_address=cluster.processes[THIRD].address("raft"))
    cluster.call(UPDATE_MEMBER, same)
    cluster.call(UPDATE_MEMBER, same)
