"""One cluster's members come, stand by, take over and leave, as an operator would have it, with real etcd members."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.member.progress import Progress
from cloudless.cli.methods import (
    GET_AUTOPILOT,
    GET_WORKLOAD,
    LEAVE_CLUSTER,
    LIST_MEMBERS,
    PROMOTE_MEMBER,
    REPLACE_MEMBER,
    SET_AUTOPILOT,
)
from cloudless.errors import Conflict, InvalidSpec, MemberRemoved, outcome_of
from cloudless.rpc.v1.cluster_pb2 import (
    GetAutopilotRequest,
    LeaveClusterRequest,
    ListMembersRequest,
    Member,
    PromoteMemberRequest,
    ReplaceMemberRequest,
    SetAutopilotRequest,
)
from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest
from etcd.find import Found
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FIRST, SECOND, THIRD = COORDINATORS
FOURTH = "coordinator-4"


@pytest.fixture
def cluster(tmp_path: Path, binary: Found) -> Iterator[LocalCluster]:
    """Three coordinators that were founded together and run."""
    made = LocalCluster(tmp_path, binary.path)
    made.add_coordinators()
    made.found_together()
    made.start(*COORDINATORS)
    try:
        made.wait_formed()
        yield made
    finally:
        made.close()


def members(cluster: LocalCluster, *via: str) -> dict[str, Member]:
    return {member.name: member for member in cluster.call(LIST_MEMBERS, ListMembersRequest(), *via).members}


def stands_by(found: dict[str, Member]) -> bool:
    fourth = found.get(FOURTH)
    return fourth is not None and fourth.health == "standby" and "4 voters survive no more losses than 3" in fourth.note


def add_fourth(cluster: LocalCluster) -> None:
    cluster.add_coordinators([FOURTH])
    cluster.processes[FOURTH].settings["RAFT_JOIN_ADDR"] = ",".join(cluster.api_addresses()[:3])


def give_up(cluster: LocalCluster, request: ReplaceMemberRequest) -> bool:
    try:
        cluster.call(REPLACE_MEMBER, request, FIRST, SECOND)
    except Conflict:  # its link is not known to be broken yet
        return False
    return True


def post_join(cluster: LocalCluster, document: object) -> tuple[int, dict[str, Any]]:
    url = f"http://{cluster.processes[FIRST].address('http')}/v1/join"
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=15.0) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_fourth_stands_by_takes_the_place_of_the_dead_and_lets_another_leave(cluster: LocalCluster) -> None:
    add_fourth(cluster)
    cluster.start(FOURTH)
    cluster.until(lambda: stands_by(members(cluster)), "a fourth stands by")
    assert members(cluster)[FOURTH].learner

    cluster.kill(THIRD, etcd=True)
    del cluster.processes[THIRD]
    request = ReplaceMemberRequest(coordinator_id=THIRD, new_coordinator_id=FOURTH)
    cluster.until(lambda: give_up(cluster, request), f"{THIRD} is given up")
    cluster.wait_formed()
    assert set(members(cluster, FIRST)) == {FIRST, SECOND, FOURTH}
    cluster.until(
        lambda: not cluster.call(GET_AUTOPILOT, GetAutopilotRequest(), FIRST).replacements, "the wish is forgotten"
    )

    leaver = cluster.leader(FIRST, SECOND, FOURTH)
    cluster.call(LEAVE_CLUSTER, LeaveClusterRequest(coordinator_id=leaver), leaver)
    code, said = cluster.exit_of(leaver)
    assert code == 0, said
    assert "has left the cluster for good" in said
    assert list(cluster.processes[leaver].data_dir.glob("etcd.left-*"))
    cluster.start(leaver)
    again, said = cluster.exit_of(leaver)
    assert (again, "CLOUDLESS_REJOIN=true" in said) == (outcome_of(MemberRemoved).exit_code, True), said
    del cluster.processes[leaver]
    cluster.wait_formed()
    assert leaver not in members(cluster, *cluster.processes)


@pytest.mark.slow
def test_a_cluster_whose_addresses_have_all_changed_comes_back_as_it_was(cluster: LocalCluster) -> None:
    cluster.apply(manifest_of("kept", replicas=0))
    noted = [cluster.datadir(name).progress for name in COORDINATORS]
    cluster.until(lambda: all(set(Progress.read(path).members) == set(COORDINATORS) for path in noted), "all is noted")
    before = {name: member.id for name, member in members(cluster).items()}
    cluster.stop(*COORDINATORS)
    for process in cluster.coordinators:
        process.ports |= cluster.place.ports_of(process.name, "api", "http", "metrics", "raft", "etcd")
        process.settings |= {
            "BIND_ADDR": process.address(),
            "HTTP_ADDR": process.address("http"),
            "METRICS_ADDR": process.address("metrics"),
            "RAFT_ADDR": process.address("raft"),
            "ETCD_CLIENT_ADDR": process.address("etcd"),
        }
    cluster.found_together()  # the same list of new addresses on all
    cluster._clients.clear()
    cluster.start(*COORDINATORS)
    cluster.wait_formed()
    after = members(cluster)
    assert {name: member.id for name, member in after.items()} == before
    assert {name: list(member.peer_urls) for name, member in after.items()} == {
        process.name: [f"http://{process.address('raft')}"] for process in cluster.coordinators
    }
    cluster.call(GET_WORKLOAD, GetWorkloadRequest(name="kept"))
    cluster.assert_one_cluster()
    assert not any(cluster.datadir(name).environment_note.exists() for name in COORDINATORS), "no relay is left"


def test_what_may_not_be_is_refused_with_its_reason(cluster: LocalCluster) -> None:
    with pytest.raises(InvalidSpec) as refused:
        cluster.call(SET_AUTOPILOT, SetAutopilotRequest(min_quorum=9, dead_after_s=1.0))
    assert [problem.field for problem in refused.value.problems] == ["dead_after_s", "min_quorum"]
    settings = cluster.call(SET_AUTOPILOT, SetAutopilotRequest(dead_after_s=45.0)).settings
    assert (settings.dead_after_s, settings.min_quorum) == (45.0, 3)
    assert cluster.call(GET_AUTOPILOT, GetAutopilotRequest(), THIRD).settings == settings
    with pytest.raises(Conflict, match="coordinator-3 lives"):
        cluster.call(REPLACE_MEMBER, ReplaceMemberRequest(coordinator_id=THIRD))
    with pytest.raises(Conflict, match="this is coordinator-1, not coordinator-2"):
        cluster.call(LEAVE_CLUSTER, LeaveClusterRequest(coordinator_id=SECOND), FIRST)
    assert cluster.call(PROMOTE_MEMBER, PromoteMemberRequest(coordinator_id=SECOND)).voters == 3
    status, answer = post_join(cluster, {"nodeId": "UPPER", "raftAddress": "nowhere", "apiAddress": "127.0.0.1:1"})
    assert (status, sorted(p["field"] for p in answer["problems"])) == (400, ["node_id", "raft_address"])
    status, answer = post_join(
        cluster, {"nodeId": SECOND, "raftAddress": "127.0.0.1:1", "apiAddress": "127.0.0.1:2", "empty": True}
    )
    assert (status, answer["code"]) == (500, "formation-refused")
    cluster.kill(THIRD, etcd=True)
    with pytest.raises(Conflict, match="only 1 answer"):
        cluster.until(lambda: cluster.call(LEAVE_CLUSTER, LeaveClusterRequest(coordinator_id=SECOND), SECOND), "")
