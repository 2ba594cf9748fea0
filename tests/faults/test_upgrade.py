"""What happens when a cluster goes to the next release, under load, and back.

etcd's own version is not changed here: it moves by its own rules, which `etcd/gate.py` and its tests hold.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

from cloudless.cli.methods import GET_AUTOPILOT, LIST_EVENTS, LIST_NODES, SCALE_WORKLOAD, SET_AUTOPILOT
from cloudless.core import keys
from cloudless.errors import Conflict, VersionRefused, outcome_of
from cloudless.rpc.v1 import objects_pb2
from cloudless.rpc.v1.cluster_pb2 import GetAutopilotRequest, SetAutopilotRequest
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.node_pb2 import ListNodesRequest
from cloudless.rpc.v1.workload_pb2 import ScaleWorkloadRequest
from tests.faults.rig.leading import leader_and_term, others_than
from tests.faults.rig.members import member_ids
from tests.faults.rig.processes import RUN_VARIABLE
from tests.faults.rig.releases import GRADE, ORIGIN, THIS, Release, build_release
from tests.faults.rig.scenario import scenario
from tests.faults.rig.tasks import wait_running
from tests.faults.rig.trial import Trial
from tests.integration.cloudless_cli import must, run_cli
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of

GAP_MAX_S = 3.0
"""A leader that hands over costs a tenth of a second, etcd's own election up to one; the rest is a busy machine."""
ORIGIN_FIELD, PLANNER_FIELD, SETTING_FIELD = 912, 914, 911
_STUBBORN = {"command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], "stopGrace": "8s"}
"""Ends late, so that the record which told it to stop can be read before it is gone."""


@scenario(36, budget_s=400)
def test_a_rolling_upgrade_under_load_stops_nobody_and_can_be_taken_back(trial: Trial, tmp_path: Path) -> None:
    """Followers first, the leader last, then the agents; all of it back again, agents first."""
    later = build_release(tmp_path, 1)
    cluster = trial.start()
    for _ in trial.rounds():
        reached = since_when_reached(cluster)
        first = step(trial, later)
        leader, _term = leader_and_term(trial)
        assert (release_of(cluster, leader), release_of(cluster, first)) == (THIS.version, later.version)
        mixed(trial, old=leader, new=first)
        second = step(trial, later)
        hand_over(trial, first)
        mixed(trial, old=leader, new=first)
        stop_by_the_old_leader(trial, old=leader, new=first)
        trial.note(f"{second} goes back while the others do not")
        restart(trial, second, THIS)
        assert plan(cluster, later)["order"], "it is asked for again"
        restart(trial, second, later)
        hand_over(trial, leader)
        assert step(trial, later) == leader, "the leader was the last one"
        done = plan(cluster, later)
        assert (done["order"], done["featureLevel"]) == ([], THIS.level), done
        assert "agents to follow, one after the other: agent-1, agent-2" in " ".join(done["notes"])
        assert since_when_reached(cluster) == reached, "no agent was without a coordinator"
        for agent in cluster.agents:
            restart(trial, agent.name, later)
        assert "until then you may go back" in " ".join(plan(cluster, later)["notes"])
        trial.settle()
        refused = judge(cluster, THIS)
        assert not refused["allowed"]
        assert "agents go back first" in " ".join(refused["refusals"])
        for agent in cluster.agents:
            restart(trial, agent.name, THIS)
        for _ in cluster.coordinators:
            step(trial, THIS)
        trial.settle()
        assert {release_of(cluster, one.name) for one in cluster.coordinators} == {THIS.version}


@scenario(36, budget_s=400)
def test_a_finished_upgrade_has_no_way_back_and_no_version_is_left_out(trial: Trial, tmp_path: Path) -> None:
    """Each round goes one release further, so that it begins as the one before did."""
    releases = [THIS, *(build_release(tmp_path, ahead) for ahead in (1, 2))]
    cluster = trial.start(agents=1, tasks=2)
    for number in trial.rounds():
        if number > 1:
            releases.append(build_release(tmp_path, number + 1))
        now, later, too_far = releases[number - 1 : number + 2]
        refuse_start(trial, too_far, now, "more than one minor version ahead")
        refuse_join(trial, too_far)
        trial.load_up()
        step(trial, later)
        unfinished = run_cli(cluster, "cluster", "upgrade", "--finish", "--yes", tree=later.tree)
        assert unfinished.code == outcome_of(Conflict).exit_code, unfinished
        assert f"still runs {now.version}" in unfinished.text
        while plan(cluster, later)["order"]:
            step(trial, later)
        assert not is_graded(trial), "what needs the next level waits for it"
        for agent in cluster.agents:
            restart(trial, agent.name, later)
        trial.note("finish the upgrade")
        said = must(run_cli(cluster, "cluster", "upgrade", "--finish", "--yes", tree=later.tree))
        assert f"the feature level is {later.level} (it was {now.level})" in said
        again = must(run_cli(cluster, "cluster", "upgrade", "--finish", "--yes", tree=later.tree))
        assert "nothing to finish" in again
        cluster.until(lambda: is_graded(trial), "every coordinator hears of the level and uses what it allows")
        refused = judge(cluster, now)
        assert not refused["allowed"]
        assert f"the upgrade to {later.level} was finished" in " ".join(refused["refusals"])
        refuse_start(trial, now, later, "is older than the cluster")
        assert plan(cluster, too_far)["order"], "what was too far is the next step now"
        trial.settle()


# --- an upgrade's steps, as a person does them ---


def judge(cluster: LocalCluster, to: Release) -> dict[str, Any]:
    """Return what the release's own `cluster upgrade --check` says."""
    said = run_cli(cluster, "cluster", "upgrade", "--check", "-o", "json", tree=to.tree)
    judged: dict[str, Any] = json.loads(said.text)
    assert said.code == (0 if judged["allowed"] else 1)
    return judged


def plan(cluster: LocalCluster, to: Release) -> dict[str, Any]:
    """Wait until the check says go, and return what it says."""
    last: dict[str, Any] = {}

    def go() -> bool:
        last.update(judge(cluster, to))
        return bool(last["allowed"])

    try:
        cluster.until(go, f"the upgrade to {to.version} may go on")
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from error
    return last


def step(trial: Trial, to: Release) -> str:
    """Restart the coordinator that the check names next; the leader only when it is the last. Return its name."""
    cluster = trial.cluster
    order = plan(cluster, to)["order"]
    leader, _term = leader_and_term(trial)
    assert leader not in order[:-1], f"the leader {leader} must be the last of {order}"
    if order == [leader]:
        hand_over(trial, others_than(cluster, leader)[0])
    restart(trial, order[0], to)
    return str(order[0])


def restart(trial: Trial, name: str, to: Release) -> None:
    """Stop a process and start it as another release, under load; writes go on all the while."""
    cluster, process = trial.cluster, trial.cluster.processes[name]
    trial.load_up()
    began_s = trial.note(f"{name} goes to {to.version}")
    cluster.stop(name)
    process.tree = to.tree
    cluster.start(name)
    cluster.wait_ready()
    trial.load_up()
    gap_s = trial.load.longest_gap_s(began_s)
    trial.figure("gap_s", gap_s)
    assert gap_s < GAP_MAX_S, f"no write for {gap_s:.1f} s while {name} went to {to.version}"
    cluster.until(lambda: release_of(cluster, name) == to.version, f"{name} says that it is {to.version}")


def hand_over(trial: Trial, to: str) -> None:
    trial.note(f"{to} shall lead")
    must(run_cli(trial.cluster, "cluster", "transfer-leader", to))
    trial.cluster.until(lambda: leader_and_term(trial)[0] == to, f"{to} leads")


def release_of(cluster: LocalCluster, name: str) -> str:
    """Return the version of a coordinator or an agent by the cluster's own word."""
    if cluster.processes[name].role == "agent":
        nodes = cluster.call(LIST_NODES, ListNodesRequest()).nodes
        return next(node.info.version for node in nodes if node.id == name)
    records = [one.record for one in cluster.status().coordinators]
    return next((record.version for record in records if record.id == name), "")


def since_when_reached(cluster: LocalCluster) -> dict[str, tuple[int, int]]:
    """Return since when each node is what it is: it changes when a node was lost for a moment."""
    nodes = cluster.call(LIST_NODES, ListNodesRequest()).nodes
    return {node.id: (node.status.reachability, node.status.since_ms) for node in nodes}


# --- two releases side by side ---


def mixed(trial: Trial, *, old: str, new: str) -> None:
    """The old release rewrites what the new one wrote, whoever leads, and loses nothing that it does not know."""
    cluster = trial.cluster
    trial.note(f"{old} is old, {new} is new, {leader_and_term(trial)[0]} leads")
    name = apply_by(trial, new, replicas=1)
    key = keys.workload("default", name)
    assert ORIGIN_FIELD in unknown_fields(cluster, old, key, "workload")
    cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name=name, replicas=2), old)
    wait_running(cluster, name, 2)
    assert ORIGIN_FIELD in unknown_fields(cluster, new, key, "workload"), "the old release kept it"
    stored = cluster.read_raw(new, key)
    assert (ORIGIN.encode() in stored, GRADE.encode() in stored) == (True, False), "the level of that is not reached"
    change_settings(cluster, old, new)
    for via in (old, new):
        assert not cluster.status(via).quarantined, dict(cluster.status(via).quarantine)
        assert cluster.call(LIST_EVENTS, ListEventsRequest(limit=10), via).events
    cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name=name, replicas=0), new)
    wait_running(cluster, name, 0)
    cluster.assert_equal_states()


def stop_by_the_old_leader(trial: Trial, *, old: str, new: str) -> None:
    """A task that the new release planned is told to stop by the old one: its record is rewritten, not cut down."""
    cluster = trial.cluster
    name = apply_by(trial, new, replicas=1, **_STUBBORN)
    key = keys.task_desired(next(iter(wait_running(cluster, name, 1))))
    assert PLANNER_FIELD in unknown_fields(cluster, old, key, "task_desired")
    hand_over(trial, old)
    cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name=name, replicas=0), new)
    cluster.until(lambda: read_task(cluster, old, key).desired == objects_pb2.DESIRED_STOPPED, f"{name} is to stop")
    assert PLANNER_FIELD in unknown_fields(cluster, old, key, "task_desired"), "the old leader kept it"
    hand_over(trial, new)
    wait_running(cluster, name, 0)


def change_settings(cluster: LocalCluster, old: str, new: str) -> None:
    """A setting that only the new release knows outlives a change of another one by the old release."""
    before = cluster.call(GET_AUTOPILOT, GetAutopilotRequest(), old).settings.dead_after_s
    cluster.call(SET_AUTOPILOT, SetAutopilotRequest(dead_after_s=before + 1), new)
    assert SETTING_FIELD in unknown_fields(cluster, old, keys.AUTOPILOT, "autopilot")
    cluster.call(SET_AUTOPILOT, SetAutopilotRequest(dead_after_s=before + 2), old)
    assert SETTING_FIELD in unknown_fields(cluster, old, keys.AUTOPILOT, "autopilot")
    assert cluster.call(GET_AUTOPILOT, GetAutopilotRequest(), new).settings.dead_after_s == before + 2


def unknown_fields(cluster: LocalCluster, via: str, key: str, arm: str) -> set[int]:
    """Return the numbers of a stored record's fields that this release does not know."""
    stored = objects_pb2.StoredRecord.FromString(cluster.read_raw(via, key))
    unknown = UnknownFieldSet(getattr(stored, arm))
    return {unknown[position].field_number for position in range(len(unknown))}


def read_task(cluster: LocalCluster, via: str, key: str) -> objects_pb2.TaskDesired:
    return objects_pb2.StoredRecord.FromString(cluster.read_raw(via, key)).task_desired


def apply_by(trial: Trial, via: str, **spec: Any) -> str:
    """Apply a workload through one coordinator; return its name."""
    name = f"mixed-{uuid.uuid4().hex[:8]}"
    trial.cluster.apply(manifest_of(name, env={RUN_VARIABLE: trial.run_id}, **{"replicas": 0, **spec}), via)
    return name


def is_graded(trial: Trial) -> bool:
    """Return whether a coordinator uses what a later release may use from its own level on."""
    via = COORDINATORS[0]
    return GRADE.encode() in trial.cluster.read_raw(via, keys.workload("default", apply_by(trial, via)))


# --- who may not run ---


def refuse_start(trial: Trial, release: Release, present: Release, words: str) -> None:
    """A member that comes back as a release that does not fit ends with the reason, and changes nothing."""
    cluster = trial.cluster
    name = others_than(cluster, leader_and_term(trial)[0])[0]
    process = cluster.processes[name]
    trial.note(f"{name} starts as {release.version}")
    cluster.stop(name)
    process.tree = release.tree
    cluster.start(name)
    code, said = cluster.exit_of(name)
    assert (code, words in said) == (outcome_of(VersionRefused).exit_code, True), said
    process.tree = present.tree
    cluster.start(name)
    cluster.wait_ready()


def refuse_join(trial: Trial, release: Release) -> None:
    """A newcomer of a release that does not fit is sent away before it gets a place."""
    cluster, name = trial.cluster, "coordinator-9"
    before = member_ids(cluster)
    cluster.add_coordinators([name])
    joiner = cluster.processes[name]
    joiner.settings["RAFT_JOIN_ADDR"] = cluster.processes[COORDINATORS[0]].address()
    joiner.tree = release.tree
    trial.note(f"{name} asks to join as {release.version}")
    cluster.start(name)
    code, said = cluster.exit_of(name)
    assert (code, "more than one minor version ahead" in said) == (outcome_of(VersionRefused).exit_code, True), said
    del cluster.processes[name]
    assert member_ids(cluster) == before
