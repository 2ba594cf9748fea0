"""However coordinators are started, stopped and robbed of their data: one cluster, or none, never two."""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudless.adapters.member.marker import DataState, judge_data
from cloudless.cli.methods import GET_WORKLOAD, LIST_MEMBERS, REMOVE_MEMBER, Method
from cloudless.errors import BadSettings, FormationRefused, MemberFailed, outcome_of
from cloudless.rpc.v1.cluster_pb2 import (
    GetFormationRequest,
    GetFormationResponse,
    ListMembersRequest,
    Member,
    RemoveMemberRequest,
)
from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest
from etcd.find import Found
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FIRST, SECOND, THIRD = COORDINATORS
REFUSED = outcome_of(FormationRefused).exit_code
ORDERS = tuple(itertools.permutations(COORDINATORS))
# The two that join are told the same and do the same: what matters is when the one that founds is started.
ORDERS_OF_THE_FIRST = [order for order in ORDERS if order.index(SECOND) < order.index(THIRD)]
LOOP_ROUNDS = 20
PROBES_MIN = 12
"""A founder asks each other one about every 0.4 s: after so many answers it has looked several times."""

GET_FORMATION = Method("/cloudless.rpc.v1.ClusterService/GetFormation", GetFormationRequest, GetFormationResponse)
ASK_FORMATION = "ClusterService/GetFormation"
ASK_JOIN = "ClusterService/JoinRaftCluster"


@pytest.fixture
def cluster(tmp_path: Path, binary: Found) -> Iterator[LocalCluster]:
    """Three coordinators, not started and told nothing yet."""
    made = LocalCluster(tmp_path, binary.path)
    made.add_coordinators()
    yield made
    made.close()


@pytest.fixture(scope="module")
def formed(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    """A running cluster that was founded together and holds a workload; a test leaves it whole."""
    made = LocalCluster(tmp_path_factory.mktemp("formed"), binary.path)
    made.add_coordinators()
    made.found_together()
    made.start(*COORDINATORS)
    try:
        made.wait_formed()
        made.apply(manifest_of("kept", replicas=0))
        yield made
    finally:
        made.close()


def short(order: tuple[str, ...]) -> str:
    return "-".join(name[-1] for name in order)


# --- forming ---


@pytest.mark.parametrize("order", ORDERS_OF_THE_FIRST, ids=short)
def test_a_bootstrapping_coordinator_and_two_joiners_form_one_cluster(
    cluster: LocalCluster, order: tuple[str, ...]
) -> None:
    cluster.bootstrap_with(FIRST)
    for name in order:
        cluster.start_listening(name)
    cluster.wait_formed()
    cluster.assert_one_cluster()


@pytest.mark.parametrize("order", ORDERS, ids=short)
def test_three_founders_form_one_cluster_in_every_order(cluster: LocalCluster, order: tuple[str, ...]) -> None:
    cluster.found_together()
    for name in order:
        cluster.start_listening(name)
    cluster.wait_formed()
    cluster.assert_one_cluster()


def test_three_founders_started_at_once_form_one_cluster(cluster: LocalCluster) -> None:
    cluster.found_together()
    cluster.start(*COORDINATORS)
    cluster.wait_formed()
    cluster.assert_one_cluster()


def test_a_founder_that_others_do_not_expect_is_refused_and_nobody_forms(cluster: LocalCluster) -> None:
    cluster.found_together()
    cluster.add_coordinators(["coordinator-4"])
    fourth = cluster.processes.pop("coordinator-4")
    addresses = [cluster.processes[FIRST].address(), cluster.processes[SECOND].address(), fourth.address()]
    cluster.processes[SECOND].settings["RAFT_JOIN_ADDR"] = ",".join(addresses)
    cluster.start(*COORDINATORS)
    refused = cluster.until(
        lambda: [name for name in (FIRST, THIRD) if not cluster.processes[name].lives], "somebody refuses"
    )
    code, said = cluster.exit_of(refused[0])
    assert code == REFUSED
    assert f"{SECOND} expects other founders" in said
    assert "same CLOUDLESS_RAFT_JOIN_ADDR" in said
    assert not any(cluster.has_formed(name) for name in COORDINATORS)


def test_two_of_three_founders_wait_for_the_third_however_long_it_takes(cluster: LocalCluster) -> None:
    cluster.found_together()
    cluster.start(FIRST, SECOND)
    cluster.until(
        lambda: min(cluster.asked(name, ASK_FORMATION) for name in (FIRST, SECOND)) >= PROBES_MIN, "many probes"
    )
    for name in (FIRST, SECOND):
        assert cluster.call(GET_FORMATION, GetFormationRequest(), name).phase == "fresh"
        assert not cluster.has_formed(name)
        assert f"waiting for {cluster.processes[THIRD].address()} to answer" in cluster.tail(name, 1000)
    cluster.start(THIRD)
    cluster.wait_formed()
    cluster.assert_one_cluster()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_founding_in_a_loop_always_gives_one_cluster(tmp_path: Path, binary: Found) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    took_s = []
    for number in range(LOOP_ROUNDS):
        cluster = LocalCluster(tmp_path / str(number), binary.path)
        try:
            cluster.add_coordinators()
            cluster.found_together()
            order = draw.sample(COORDINATORS, 3)
            started_s = time.monotonic()
            cluster.start(*order)
            cluster.wait_formed()
            took_s.append(time.monotonic() - started_s)
            cluster.assert_one_cluster()
            print(f"round {number} {short(tuple(order))}: formed in {took_s[-1]:.1f} s")
        except AssertionError as error:
            for name, tail in cluster.tails():
                error.add_note(f"--- {name}\n{tail}")
            raise
        finally:
            cluster.close()
    print(f"formed in {min(took_s):.1f} to {max(took_s):.1f} s, half of them within {sorted(took_s)[10]:.1f} s")


# --- data that is gone ---


@pytest.mark.parametrize("only_etcd", [True, False], ids=["etcd-directory", "whole-directory"])
def test_an_emptied_member_comes_back_as_a_new_member_of_the_same_cluster(
    formed: LocalCluster, only_etcd: bool
) -> None:
    before = {member.name: member.id for member in formed.members(FIRST)}
    cluster_id = formed.status(FIRST).header.cluster_id
    formed.stop(THIRD)
    formed.empty(THIRD, only_etcd=only_etcd)
    assert judge_data(formed.datadir(THIRD)) is (DataState.LOST if only_etcd else DataState.FRESH)
    formed.start(THIRD)
    formed.wait_formed()
    after = {member.name: member.id for member in formed.members(FIRST)}
    assert after[THIRD] != before[THIRD]
    assert {n: after[n] for n in (FIRST, SECOND)} == {n: before[n] for n in (FIRST, SECOND)}
    assert formed.status(THIRD).header.cluster_id == cluster_id
    formed.call(GET_WORKLOAD, GetWorkloadRequest(name="kept"), THIRD)
    formed.assert_one_cluster()


def test_an_emptied_bootstrap_coordinator_joins_the_cluster_that_its_join_addresses_have(formed: LocalCluster) -> None:
    first = formed.processes[FIRST]
    settings = dict(first.settings)
    cluster_id = formed.status(SECOND).header.cluster_id
    formed.stop(FIRST)
    formed.empty(FIRST)
    del first.settings["BOOTSTRAP_EXPECT"]
    first.settings["BOOTSTRAP"] = "true"
    try:
        formed.start(FIRST)
        formed.wait_formed()
        assert formed.status(FIRST).header.cluster_id == cluster_id
        formed.assert_one_cluster()
    finally:
        first.settings = settings


def test_two_of_three_emptied_wait_instead_of_forming_an_empty_cluster(cluster: LocalCluster) -> None:
    cluster.found_together()
    cluster.start(*COORDINATORS)
    cluster.wait_formed()
    cluster.stop(*COORDINATORS)
    for name in (SECOND, THIRD):
        cluster.empty(name)
    cluster.start(*COORDINATORS)
    cluster.until(
        lambda: cluster.asked(FIRST, ASK_JOIN) >= PROBES_MIN, "the emptied ones ask the survivor again and again"
    )
    for name in (SECOND, THIRD):
        assert cluster.call(GET_FORMATION, GetFormationRequest(), name).phase == "fresh"
        assert not cluster.has_formed(name)
        assert "waiting to join" in cluster.tail(name, 1000)
    assert cluster.processes[FIRST].lives


# --- two of one ---


@pytest.mark.parametrize(
    ("shared", "code_word", "cure"),
    [
        ("DATA_DIR", "belongs to pid", "CLOUDLESS_DATA_DIR"),
        ("BIND_ADDR", "cannot listen on", "choose another"),
        ("HTTP_ADDR", "cannot listen on", "choose another port"),
        ("NODE_ID", "a living coordinator has the id", "CLOUDLESS_NODE_ID"),
        ("RAFT_ADDR", "belongs to coordinator-2", "CLOUDLESS_RAFT_ADDR"),
    ],
)
def test_a_second_coordinator_that_shares_what_must_be_its_own_exits_and_says_so(
    formed: LocalCluster, shared: str, code_word: str, cure: str
) -> None:
    name = f"twin-{shared.lower().replace('_', '-')}"
    own = {} if shared == "NODE_ID" else {"NODE_ID": name}
    del (twin := formed.add_twin(name, SECOND, **own)).settings["BOOTSTRAP_EXPECT"]
    twin.settings[shared] = formed.processes[SECOND].settings[shared]
    try:
        formed.start(name)
        code, said = formed.exit_of(name)
    finally:
        del formed.processes[name]
    assert code == REFUSED, said
    assert code_word in said
    assert cure in said
    formed.wait_formed()


def test_a_setting_that_nobody_reads_is_refused_with_the_nearest_name(cluster: LocalCluster) -> None:
    cluster.processes[FIRST].settings |= {"RAFT_JION_ADDR": "127.0.0.1:1", "NODE_TIMEOUT": "soon"}
    cluster.start(FIRST)
    code, said = cluster.exit_of(FIRST)
    assert code == outcome_of(BadSettings).exit_code
    assert re.search(r"CLOUDLESS_RAFT_JION_ADDR: .*did you mean CLOUDLESS_RAFT_JOIN_ADDR\?", said)
    assert "CLOUDLESS_NODE_TIMEOUT: must be seconds" in said


# --- a place that is taken away again ---

SLOW_ETCD = """#!/bin/sh
# etcd, started as a member only once a file says so.
case "$*" in *--data-dir*) while [ ! -e {gate} ]; do sleep 0.05; done ;; esac
exec {etcd} "$@"
"""
BROKEN_ETCD = """#!/bin/sh
case "$*" in *--data-dir*) echo "cannot start" >&2; exit 1 ;; esac
exec {etcd} "$@"
"""


def write_program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def add_joiner(cluster: LocalCluster, name: str, program: str) -> None:
    cluster.add_coordinators([name])
    cluster.processes[name].settings |= {"ETCD_BIN": program, "RAFT_JOIN_ADDR": ",".join(cluster.api_addresses()[:3])}


def members_of(cluster: LocalCluster) -> list[Member]:
    return list(cluster.call(LIST_MEMBERS, ListMembersRequest(), FIRST).members)


def test_a_joiner_whose_place_was_taken_away_before_its_etcd_started_asks_for_another(
    cluster: LocalCluster, tmp_path: Path, binary: Found
) -> None:
    cluster.found_together()
    cluster.start(*COORDINATORS)
    cluster.wait_formed()
    name, gate = "coordinator-4", tmp_path / "go"
    program = write_program(tmp_path / "slow-etcd", SLOW_ETCD.format(gate=gate, etcd=binary.path))
    add_joiner(cluster, name, program)
    cluster.start(name)
    cluster.until(lambda: "joining as a learner" in cluster.tail(name, 1000), "it has a place and starts etcd")
    (place,) = (member for member in members_of(cluster) if not member.started)
    cluster.call(REMOVE_MEMBER, RemoveMemberRequest(coordinator_id=f"{place.id:x}"), FIRST)
    gate.touch()
    cluster.until(
        lambda: any(m.name == name and m.started and m.id != place.id for m in members_of(cluster)),
        "it has another place, and uses it",
    )
    assert "asks to join again (2 of 5)" in cluster.tail(name, 1000)
    assert cluster.processes[name].lives


def test_a_joiner_whose_etcd_never_starts_gives_up(cluster: LocalCluster, tmp_path: Path, binary: Found) -> None:
    cluster.found_together()
    cluster.start(*COORDINATORS)
    cluster.wait_formed()
    name = "coordinator-4"
    add_joiner(cluster, name, write_program(tmp_path / "broken-etcd", BROKEN_ETCD.format(etcd=binary.path)))
    cluster.start(name)
    code, said = cluster.exit_of(name, 60.0)
    assert code == outcome_of(MemberFailed).exit_code, said
    assert "asks to join again (5 of 5)" in said
    assert "cannot start" in said
