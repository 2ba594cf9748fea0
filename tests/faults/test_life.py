"""What happens when a cluster is killed, halved, moved, grown and shrunk while it is used."""

from __future__ import annotations

import random
import time

from cloudless.adapters.member.marker import Marker
from cloudless.adapters.member.progress import Progress
from cloudless.cli.methods import GET_WORKLOAD, LEAVE_CLUSTER, REMOVE_MEMBER, REPLACE_MEMBER, SET_AUTOPILOT
from cloudless.errors import CloudlessError, Conflict, MemberRemoved, outcome_of
from cloudless.rpc.v1.cluster_pb2 import (
    LeaveClusterRequest,
    RemoveMemberRequest,
    ReplaceMemberRequest,
    SetAutopilotRequest,
)
from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest
from tests.faults.rig.leading import leader_and_term, others_than
from tests.faults.rig.members import add_joiner, assert_members_agree, assert_replaced, member_ids, members, roles
from tests.faults.rig.scenario import Need, scenario
from tests.faults.rig.trial import STEADY, Trial
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of, stale

FAST_S = 12.0
"""A write's own deadline is 10 s; the answer must not be later than that."""
STEPS = ("asked", "learner", "started", "promoted")


@scenario(30, rounds=2)
def test_after_everything_was_killed_all_that_was_acknowledged_is_there(trial: Trial) -> None:
    cluster = trial.start(agents=3, tasks=6)
    for _ in trial.rounds():
        trial.load_up()
        began_s = trial.note("kill all coordinators, their etcd and all agents")
        cluster.kill(*cluster.processes, etcd=True)
        before = member_ids_by_marker(cluster)
        order = random.sample(list(cluster.processes), len(cluster.processes))
        trial.note(f"start {', '.join(order)}")
        cluster.start(*order)
        cluster.wait_ready()
        trial.figure("whole_s", time.monotonic() - began_s)
        trial.settle()
        assert member_ids_by_marker(cluster) == before, "each came back as the member it was"


@scenario(31)
def test_with_two_of_three_down_reads_are_marked_stale_and_writes_fail_in_time(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        survivor, *victims = random.sample(COORDINATORS, 3)
        trial.load_up()
        trial.note(f"kill {' and '.join(victims)} with their etcd")
        cluster.kill(*victims, etcd=True)
        cluster.wait_http(survivor, "/readyz", 503)
        answer = cluster.call(GET_WORKLOAD, GetWorkloadRequest(name=STEADY, read=stale()), survivor)
        assert answer.workload.record.name == STEADY, "what it holds is read all the same"
        assert answer.header.staleness_s > 1, "and marked as old"
        status = cluster.status(survivor)
        assert status.health == "unavailable"
        assert status.problems
        for ask in (linearizable_read, write):
            began_s = time.monotonic()
            refused = refusal_of(ask, cluster, survivor)
            took_s = time.monotonic() - began_s
            trial.figure(f"{ask.__name__}_refused_s", took_s)
            assert refused is not None and refused.retryable, refused  # noqa: PT018
            assert took_s < FAST_S
        began_s = trial.note("start them again")
        cluster.start(*victims)
        trial.load_up()
        trial.figure("writable_s", time.monotonic() - began_s)
        trial.settle()


@scenario(33, rounds=len(STEPS), budget_s=400)
def test_a_member_replaced_under_load_is_resumed_after_a_crash_at_any_step(trial: Trial) -> None:
    """Each round kills the joiner, and the leader that admits and promotes it, at another step of the way."""
    cluster = trial.start()
    for number in trial.rounds():
        step, before = STEPS[(number - 1) % len(STEPS)], member_ids(cluster)
        leader, _ = leader_and_term(trial)
        joiner = random.choice(others_than(cluster, leader))
        trial.load_up()
        began_s = trial.note(f"{joiner} loses its data; crash when it has {step}")
        cluster.kill(joiner, etcd=True)
        cluster.empty(joiner)
        cluster.start(joiner)
        cluster.until(lambda: has_come_to(cluster, step, joiner, leader, before), f"it has {step}")
        cluster.kill(joiner, etcd=True)
        cluster.kill(leader)
        cluster.start(joiner, leader)
        trial.settle(within_s=60)
        trial.figure("replaced_s", time.monotonic() - began_s)
        trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        assert_replaced(cluster, joiner, before)


@scenario(33, budget_s=300)
def test_a_coordinator_that_is_gone_for_good_is_replaced_by_one_command(trial: Trial) -> None:
    """The leader dies at some step of it; the next one goes on from what is there."""
    cluster = trial.start()
    for _ in trial.rounds():
        leader, _term = leader_and_term(trial)
        dead, before = random.choice(others_than(cluster, leader)), member_ids(cluster)
        trial.load_up()
        began_s = trial.note(f"{dead} is gone for good")
        cluster.kill(dead, etcd=True)
        left = others_than(cluster, dead)
        gone = cluster.processes.pop(dead)
        request = ReplaceMemberRequest(coordinator_id=dead, new_coordinator_id="coordinator-4")
        cluster.until(lambda: give_up(cluster, request, *left), f"{dead} is given up")  # once its lease has ended
        cluster.start(add_joiner(trial, "coordinator-4", left[0]))
        cluster.until(lambda: dead not in member_ids(cluster, left[0]), f"{dead} is no member any more")
        trial.note(f"kill the leader {leader}")
        cluster.kill(leader)
        cluster.start(leader)
        trial.settle(within_s=60)
        trial.figure("replaced_s", time.monotonic() - began_s)
        assert member_ids(cluster) == {n: id for n, id in before.items() if n != dead} | {
            "coordinator-4": member_ids(cluster)["coordinator-4"]
        }
        trial.note(f"{dead} comes back after all")
        gone.settings |= {"RAFT_JOIN_ADDR": ",".join(cluster.api_addresses())}
        cluster.processes[dead] = gone
        cluster.start(dead)
        assert cluster.exit_of(dead)[0] == outcome_of(MemberRemoved).exit_code
        del cluster.processes[dead]
        trial.settle()


@scenario(33, budget_s=300)
def test_a_coordinator_that_stands_by_takes_the_place_of_a_dead_one_by_itself(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        wanted = SetAutopilotRequest(dead_after_s=5.0, stabilization_s=1.0)
        cluster.call(SET_AUTOPILOT, wanted)
        leader, _term = leader_and_term(trial)
        stand_by(trial, leader, "coordinator-4")
        dead, before = random.choice(others_than(cluster, "coordinator-4")), member_ids(cluster, leader)
        trial.load_up()
        began_s = trial.note(f"{dead} dies for good")
        cluster.kill(dead, etcd=True)
        del cluster.processes[dead]
        trial.settle(within_s=60)
        trial.figure("healed_s", time.monotonic() - began_s)
        trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        assert member_ids(cluster) == {name: id for name, id in before.items() if name != dead}


@scenario(34)
def test_a_removed_member_ends_with_a_clear_message_and_joins_anew_when_emptied(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        leader, _term = leader_and_term(trial)
        victim, before = random.choice(others_than(cluster, leader)), member_ids(cluster)
        trial.load_up()
        began_s = trial.note(f"remove {victim}")
        cluster.call(REMOVE_MEMBER, RemoveMemberRequest(coordinator_id=victim), *others_than(cluster, victim))
        code, said = cluster.exit_of(victim)
        trial.figure("ended_s", time.monotonic() - began_s)
        assert code == outcome_of(MemberRemoved).exit_code
        assert "start with an empty CLOUDLESS_DATA_DIR" in said
        trial.load_up()
        for _ in range(2):
            cluster.start(victim)
            again, said = cluster.exit_of(victim)
            assert (again, "removed" in said) == (code, True), said
        cluster.empty(victim)
        cluster.start(victim)
        trial.settle()
        assert_replaced(cluster, victim, before)


@scenario(34)
def test_a_removed_member_that_is_told_to_rejoin_puts_its_data_aside_and_joins_as_new(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        leader, _term = leader_and_term(trial)
        victim, before = random.choice(others_than(cluster, leader)), member_ids(cluster)
        trial.load_up()
        trial.note(f"remove {victim}")
        cluster.call(REMOVE_MEMBER, RemoveMemberRequest(coordinator_id=victim), *others_than(cluster, victim))
        assert cluster.exit_of(victim)[0] == outcome_of(MemberRemoved).exit_code
        cluster.processes[victim].settings["REJOIN"] = "true"
        began_s = trial.note(f"start {victim}, told to rejoin")
        cluster.start(victim)
        trial.settle(within_s=60)
        trial.figure("rejoined_s", time.monotonic() - began_s)
        assert_replaced(cluster, victim, before, aside="removed")


@scenario(35)
def test_every_member_moves_to_another_address_one_after_the_other(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        before = member_ids(cluster)
        for process in cluster.coordinators:
            trial.load_up()
            began_s = trial.note(f"{process.name} moves")
            cluster.stop(process.name)
            process.ports |= cluster.place.ports_of(process.name, "raft", "etcd")
            process.settings |= {"RAFT_ADDR": process.address("raft"), "ETCD_CLIENT_ADDR": process.address("etcd")}
            cluster.start(process.name)
            cluster.wait_ready()
            trial.figure("moved_s", time.monotonic() - began_s)
            trial.figure("gap_s", trial.load.longest_gap_s(began_s))
            trial.renew_history()  # the recorder at etcd has to be told where the members are
        trial.settle()
        assert member_ids(cluster) == before, "each is the member it was"
        told = {member.name: member.peer_urls for member in cluster.members(COORDINATORS[0])}
        assert told == {one.name: (cluster.etcd_url(one.name, "raft"),) for one in cluster.coordinators}


@scenario(35, needs=(Need.NETNS,), budget_s=300)
def test_all_members_that_moved_while_they_were_down_find_each_other_again(trial: Trial) -> None:
    """Every raft address changes between stop and start, so that nobody is where etcd's data say."""
    cluster = trial.start()
    for _ in trial.rounds():
        trial.load_up()
        before = member_ids(cluster)
        noted = [cluster.datadir(name).progress for name in COORDINATORS]
        cluster.until(lambda: all(set(Progress.read(path).members) == set(COORDINATORS) for path in noted), "noted")
        trial.note("stop all, give each another address, start all")
        cluster.stop(*COORDINATORS)
        for process in cluster.coordinators:
            process.ports |= cluster.place.ports_of(process.name, "raft", "etcd")
            process.settings |= {"RAFT_ADDR": process.address("raft"), "ETCD_CLIENT_ADDR": process.address("etcd")}
        began_s = time.monotonic()
        cluster.start(*COORDINATORS)
        cluster.wait_ready(60.0)
        trial.figure("whole_s", time.monotonic() - began_s)
        trial.renew_history()
        trial.settle(within_s=60)
        assert member_ids(cluster) == before, "each is the member it was"
        told = {member.name: member.peer_urls for member in cluster.members(COORDINATORS[0])}
        assert told == {one.name: (cluster.etcd_url(one.name, "raft"),) for one in cluster.coordinators}


@scenario(37, budget_s=300)
def test_a_cluster_grows_from_one_to_three_to_five_and_shrinks_to_three(trial: Trial) -> None:
    """Two at a time come and vote; one alone stands by as a learner; two leave by themselves."""
    first = "coordinator-1"
    cluster = trial.start(coordinators=(first,))
    for _ in trial.rounds():
        grow(trial, first, "coordinator-2", "coordinator-3")
        trial.settle(within_s=60)
        stand_by(trial, first, "coordinator-4")
        grow(trial, first, "coordinator-5", waiting=("coordinator-4",))
        trial.settle(within_s=60)
        for leaver in ("coordinator-5", "coordinator-4"):
            trial.load_up()
            began_s = trial.note(f"{leaver} leaves")
            cluster.call(LEAVE_CLUSTER, LeaveClusterRequest(coordinator_id=leaver), leaver)
            assert cluster.exit_of(leaver)[0] == 0
            assert list(cluster.processes[leaver].data_dir.glob("etcd.left-*"))
            del cluster.processes[leaver]
            assert_members_agree(cluster, first)
            trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        trial.settle()
        assert set(roles(cluster, first).values()) == {"voter"}
        assert len(roles(cluster, first)) == 3


def grow(trial: Trial, first: str, *names: str, waiting: tuple[str, ...] = ()) -> None:
    """Let coordinators join at once, under load; at every look etcd and cloudless tell the same members."""
    cluster = trial.cluster
    trial.load_up()
    began_s = trial.note(f"{' and '.join(names)} join")
    cluster.start(*(add_joiner(trial, name, first) for name in names))

    def all_vote() -> bool:
        assert_members_agree(cluster, first)
        told = roles(cluster, first)
        assert sum(role == "learner" for role in told.values()) <= 1, "one learner at a time"
        return all(told.get(name) == "voter" for name in (*names, *waiting))

    cluster.until(all_vote, f"{', '.join(names)} vote", 90.0)
    trial.figure("joined_s", time.monotonic() - began_s)
    trial.figure("gap_s", trial.load.longest_gap_s(began_s))


def stand_by(trial: Trial, first: str, name: str) -> None:
    """A coordinator that would make the number of voters even becomes a learner, and people are told why."""
    cluster = trial.cluster
    trial.load_up()
    trial.note(f"{name} joins alone")
    cluster.start(add_joiner(trial, name, first))

    def stands_by() -> bool:
        found = next((member for member in members(cluster, first) if member.name == name), None)
        return (
            found is not None and found.health == "standby" and "4 voters survive no more losses than 3" in found.note
        )

    cluster.until(stands_by, f"{name} stands by", 60.0)
    assert roles(cluster, first)[name] == "learner"


# --- what the scenarios do ---


def member_ids_by_marker(cluster: LocalCluster) -> dict[str, str]:
    return {one.name: Marker.read(cluster.datadir(one.name).marker).member_id for one in cluster.coordinators}


def give_up(cluster: LocalCluster, request: ReplaceMemberRequest, *via: str) -> bool:
    """Return whether a dead coordinator could be given up; one whose lease has not ended counts as alive."""
    try:
        cluster.call(REPLACE_MEMBER, request, *via)
    except Conflict:
        return False
    return True


def linearizable_read(cluster: LocalCluster, via: str) -> None:
    cluster.call(GET_WORKLOAD, GetWorkloadRequest(name=STEADY), via)


def write(cluster: LocalCluster, via: str) -> None:
    cluster.apply(manifest_of("late", replicas=0), via)


def refusal_of(ask, cluster: LocalCluster, via: str) -> CloudlessError | None:
    try:
        ask(cluster, via)
    except CloudlessError as error:
        return error
    return None


def has_come_to(cluster: LocalCluster, step: str, joiner: str, leader: str, before: dict[str, int]) -> bool:
    """Return whether the joiner's way into the cluster has reached this step."""
    if step == "asked":
        others = others_than(cluster, joiner)  # whichever it happens to ask hands it on
        return any(cluster.asked(other, "ClusterService/JoinRaftCluster") > 0 for other in others)
    now = roles(cluster, leader)
    new = {
        name: role for name, role in now.items() if name != joiner or member_ids(cluster).get(joiner) != before[joiner]
    }
    if step == "learner":
        return "learner" in new.values()
    return new.get(joiner) == "voter" if step == "promoted" else new.get(joiner, "") != ""
