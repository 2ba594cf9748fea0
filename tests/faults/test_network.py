"""What happens when the network between hosts fails: in whole, in part, in one direction, or now and then.

The client's host stays connected unless a test says otherwise, so that what a cut-off coordinator answers can be
judged, and its answers reach the readers and writers.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

import pytest

from cloudless.cli.methods import DELETE_WORKLOAD, GET_WORKLOAD, SCALE_WORKLOAD, WATCH
from cloudless.core import keys
from cloudless.errors import CloudlessError, Compacted, HistoryGone, NotFound
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_LINEARIZABLE, ReadOptions
from cloudless.rpc.v1.event_pb2 import WatchRequest
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest, GetWorkloadRequest, ScaleWorkloadRequest
from tests.faults.rig.longcut import LONG_CUT_S, compress_time
from tests.faults.rig.oracles import head_of
from tests.faults.rig.scenario import Need, scenario
from tests.faults.rig.trial import STEADY, Trial
from tests.integration.cluster import LocalCluster, manifest_of, stale

NETNS = (Need.NETNS,)
# Two thirds of a lease of 4 s, and what a busy machine adds.
STEPPED_DOWN_S = 6.0
# A whole lease, etcd's sweep for ended leases, and an election of etcd's own.
ELECTED_S = 12.0
# A coordinator sends its agents away after 5 s without fresh state.
SHED_S = 10.0
# gRPC's keep-alive: a ping after 10 s, given up after 5 s more.
KEEPALIVE_S = 20.0
# An agent leaves a coordinator after three silent periods of a second.
SILENT_S = 7.0
FLAP_S = 2.0
RECORD_PERIOD_S = 30.0


@scenario(11, needs=NETNS, rounds=2)
def test_an_isolated_leader_stops_leading_and_the_majority_elects(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        old, term = cluster.leader(), cluster.status().header.term
        trial.load_up()
        began_s = trial.note(f"isolate the leader, {old}")
        trial.net.part([old], others_of(trial, old))
        trial.figure("new_leader_s", wait_led(trial, began_s, term))
        cluster.until(lambda: not leads(cluster, old), f"{old} stops leading", STEPPED_DOWN_S)
        trial.figure("stepped_down_s", time.monotonic() - began_s)
        trial.load_up()
        trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        trial.net.heal()
        trial.settle()


@scenario(12, needs=NETNS, rounds=2)
def test_a_leader_that_is_not_heard_or_does_not_hear_gives_one_leader_in_the_end(trial: Trial) -> None:
    """Rounds alternate: first the leader's words are lost, then those of the others to it."""
    cluster = trial.start()
    for number in trial.rounds():
        old = cluster.leader()
        trial.load_up()
        began_s = trial.note(f"{old} is not heard" if number % 2 else f"{old} does not hear")
        for other in others_of(trial, old):
            trial.net.cut(*((old, other) if number % 2 else (other, old)))
        trial.load_up()
        hold(10.0)
        terms = len(trial.load.terms_since(began_s))
        trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        trial.figure("terms_in_10_s", terms)
        assert terms <= 4, "leaders come and go while the fault lasts"
        trial.net.heal()
        trial.settle()


@scenario(13, needs=NETNS, rounds=2)
def test_a_coordinator_whose_etcd_lost_its_peers_says_so_and_sheds_its_agents(trial: Trial) -> None:
    """Rounds alternate: first a follower, then the leader."""
    cluster = trial.start(agents=3)
    for number in trial.rounds():
        lonely = cluster.followers()[0] if number % 2 else cluster.leader()
        term = cluster.status().header.term
        trial.load_up()
        began_s = trial.note(f"cut only etcd's traffic between {lonely} and the others")
        trial.net.part([lonely], [p.name for p in cluster.coordinators if p.name != lonely], "raft")
        cluster.wait_http(lonely, "/readyz", 503, SHED_S)
        trial.figure("not_ready_s", time.monotonic() - began_s)
        cluster.until(lambda: cluster.metric(lonely, "agent_sessions") == 0, f"{lonely} sheds its agents", SHED_S)
        trial.figure("shed_s", time.monotonic() - began_s)
        assert cluster.status(lonely).health != "ok"
        answer = cluster.call(GET_WORKLOAD, GetWorkloadRequest(name=STEADY, read=stale()), lonely)
        assert answer.header.staleness_s > 3, "an old answer must say how old it may be"
        assert refuses_linearizable_reads(cluster, lonely)
        if not number % 2:
            trial.figure("new_leader_s", wait_led(trial, began_s, term))
        trial.load_up()
        trial.net.heal()
        trial.settle()


@scenario(14, needs=NETNS)
def test_a_leader_cut_from_its_etcd_steps_down_and_another_takes_over(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        old, term = cluster.leader(), cluster.status().header.term
        trial.load_up()
        began_s = trial.note(f"cut {old} off its own etcd, the only one it uses")
        trial.net.cut(old, old, "etcd")
        cluster.until(lambda: not leads(cluster, old), f"{old} stops leading", STEPPED_DOWN_S)
        trial.figure("stepped_down_s", time.monotonic() - began_s)
        trial.figure("new_leader_s", wait_led(trial, began_s, term))
        trial.load_up()
        trial.net.heal()
        trial.settle()


@scenario(15, needs=NETNS, budget_s=100 + int(LONG_CUT_S))
def test_tasks_of_agents_that_reach_no_coordinator_run_on_and_are_brought_up_to_date(trial: Trial) -> None:
    """Meanwhile a task ends, which its agent must start again by itself, and a workload is scaled to nothing, whose
    task must be stopped once the agents hear of it.
    """
    cluster = trial.start(prepare=compress_time)
    agents, coordinators = [p.name for p in cluster.agents], [p.name for p in cluster.coordinators]
    cluster.apply(manifest_of("doomed", replicas=1, lostAfter="60m"))
    cluster.apply(manifest_of("mortal", replicas=1, command=["sleep", "15"], lostAfter="60m", **ALWAYS))
    cluster.until(lambda: running(cluster, "doomed") and running(cluster, "mortal"), "two more tasks run")
    for _ in trial.rounds():
        trial.load_up()
        began_s = trial.note("cut all agents off all coordinators")
        trial.net.part(agents, coordinators)
        nodes_gone = dict.fromkeys(agents, "OFFLINE")
        cluster.until(lambda: cluster.phases() == nodes_gone, "every node is offline")
        cluster.call(SCALE_WORKLOAD, ScaleWorkloadRequest(name="doomed", replicas=0))
        seen = {agent: head_of(cluster, agent).revision_seen for agent in agents}
        hold_and_read(trial, began_s + LONG_CUT_S)
        healed_s = trial.note("heal")
        trial.net.heal()
        cluster.until(lambda: not running(cluster, "doomed"), "the deleted workload's task is stopped")
        trial.figure("cut_s", healed_s - began_s)
        trial.figure("resynced_s", time.monotonic() - healed_s)
        for agent in agents:
            cluster.until(lambda: newer(cluster, agent, seen[agent]), f"{agent} hears of what it missed")
        restarts = [task.observed.restarts for task in cluster.tasks("mortal")]
        assert max(restarts, default=0) >= 2, "its agent restarts a task without any coordinator"
        trial.settle()


ALWAYS = {"restartPolicy": {"policy": "ALWAYS", "backoff": "1s"}}


@scenario(16, needs=NETNS)
def test_an_agent_that_reaches_only_a_lagging_coordinator_is_not_served_by_it(trial: Trial) -> None:
    cluster = trial.start(agents=1)
    agent = cluster.agents[0].name
    for number in trial.rounds():
        lagging = cluster.followers()[0]
        ahead = [p.name for p in cluster.coordinators if p.name != lagging]
        trial.load_up()
        trial.note(f"{lagging} no longer hears of what is stored, {agent} still does")
        trial.net.part([lagging], ahead, "raft")
        trial.net.part([agent], [lagging])
        before = head_of(cluster, agent)
        cluster.apply(manifest_of("news", replicas=2, env={"ROUND": str(number)}), *ahead)
        cluster.until(lambda: len(running(cluster, "news", *ahead)) == 2, "tasks that the lagging one has not heard of")
        seen = cluster.until(lambda: newer(cluster, agent, before.revision_seen), f"{agent} has seen them")
        assert cluster.metric(lagging, "state_revision") < seen, "it does not lag"
        trial.note(f"{agent} reaches only {lagging}")
        trial.net.heal()
        trial.net.part([lagging], ahead, "raft")
        trial.net.part([agent], ahead)
        served = watch_served(trial, agent, lagging, 6.0)
        assert not served, f"{lagging} served {agent} {served}"
        caught_up_s = trial.note(f"{lagging} catches up")
        trial.net.heal()
        trial.net.part([agent], ahead)
        cluster.until(lambda: primary_is(cluster, agent, lagging), f"{agent} is served by {lagging}", 20.0)
        trial.figure("served_after_s", time.monotonic() - caught_up_s)
        assert head_of(cluster, agent).revision_seen >= seen
        trial.net.heal()
        trial.settle()


def for_slow_networks(cluster: LocalCluster) -> None:
    for process in cluster.coordinators:
        process.settings |= {"PROFILE": "slow-disk"}


@scenario(17, needs=NETNS, budget_s=300)
def test_a_lossy_slow_and_disorderly_network_makes_everything_slower_and_nothing_wrong(trial: Trial) -> None:
    """Three stages: half of all packets between coordinators lost; a delay of 0 to 40 ms that reorders; then 100 ms.

    100 ms each way, so 200 ms for a question and its answer.
    """
    cluster = trial.start(prepare=for_slow_networks)
    coordinators = [process.name for process in cluster.coordinators]
    for _ in trial.rounds():
        trial.load_up()
        measure_stage(trial, "half_lost", lambda: trial.net.part(coordinators, coordinators, "raft", "api", percent=50))
        trial.settle(within_s=60.0)
        measure_stage(trial, "reordered", lambda: trial.net.slow_down(0, 40))
        measure_stage(trial, "slow", lambda: trial.net.slow_down(90, 110))
        trial.net.heal()
        trial.settle(within_s=60.0)


def measure_stage(trial: Trial, name: str, begin: Callable[[], None]) -> None:
    """Let a fault last for 10 s, and note how many writes a second were acknowledged meanwhile."""
    began_s, before = trial.note(f"{name} for 10 s"), len(trial.load.acks)
    begin()
    hold(10.0)
    trial.figure(f"{name}_writes_per_s", (len(trial.load.acks) - before) / (time.monotonic() - began_s))
    trial.figure(f"{name}_gap_s", trial.load.longest_gap_s(began_s))
    if name == "half_lost":
        trial.net.heal()


@scenario(18, needs=NETNS)
def test_connections_that_fall_silent_are_noticed_on_both_sides(trial: Trial) -> None:
    """No FIN and no RST reaches anybody: packets between an agent and its primary, or a watcher's, just vanish."""
    cluster = trial.start(agents=3)
    for _ in trial.rounds():
        agent = cluster.agents[0].name
        primary = cluster.until(lambda: primary_of(cluster, agent), f"{agent} has a primary")
        sessions = cluster.metric(primary, "agent_sessions")
        trial.load_up()
        began_s = trial.note(f"silence between {agent} and {primary}")
        trial.net.part([agent], [primary])
        cluster.until(lambda: primary_of(cluster, agent) not in ("", primary), "another primary", SILENT_S)
        trial.figure("agent_noticed_s", time.monotonic() - began_s)
        cluster.until(lambda: cluster.metric(primary, "agent_sessions") < sessions, "the session ends", KEEPALIVE_S)
        trial.figure("coordinator_noticed_s", time.monotonic() - began_s)
        trial.net.heal()
        trial.settle()


@scenario(19, needs=NETNS)
def test_a_partition_that_flaps_gives_few_elections_and_converges(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        trial.load_up()
        began_s, flaps = time.monotonic(), 5
        for _ in range(flaps):
            leader = cluster.leader()
            trial.note(f"isolate {leader} for {FLAP_S:g} s")
            trial.net.part([leader], others_of(trial, leader))
            hold(FLAP_S)
            trial.net.heal()
            hold(FLAP_S)
        terms = len(trial.load.terms_since(began_s))
        trial.figure("terms", terms)
        trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        assert terms <= 2 * flaps + 1
        trial.settle()


@scenario(38, needs=NETNS)
def test_a_coordinator_cut_off_past_a_compaction_reads_everything_afresh_deletions_included(trial: Trial) -> None:
    cluster = trial.start()
    for number in trial.rounds():
        away = cluster.followers()[0]
        ahead = [p.name for p in cluster.coordinators if p.name != away]
        names = [f"gone-{number}-{n}" for n in range(10)]
        for name in names:
            cluster.apply(manifest_of(name, replicas=0))
        trial.load_up()
        resets, held = cluster.metric(away, "state_resets"), cluster.metric(away, "state_revision")
        trial.note(f"cut {away} off its etcd")
        trial.net.cut(away, away, "etcd")
        for name in names:
            cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=name), *ahead)
        cluster.until(lambda: not any(there(cluster, name, *ahead) for name in names), "they are deleted")
        trial.load_up(100)
        newest = trial.read_record()
        trial.note(f"compact at revision {newest}, {newest - held:g} after what {away} holds")
        cluster.compact(ahead[0], newest)
        cluster.until(lambda: has_compacted(cluster, away, int(held)), "its member has compacted too")
        back_s = trial.note("heal")
        trial.net.heal()
        cluster.until(lambda: cluster.metric(away, "state_resets") > resets, f"{away} reads afresh")
        trial.figure("read_afresh_s", time.monotonic() - back_s)
        cluster.until(lambda: not there(cluster, names[0], away), "it has heard of the deletions")
        with pytest.raises(HistoryGone):
            next(iter(cluster.client(away).stream(WATCH, WatchRequest(from_revision=int(held)), timeout_s=10.0)))
        trial.settle()


def has_compacted(cluster: LocalCluster, name: str, revision: int) -> bool:
    """Return whether a member has forgotten what was at a revision.

    Asked by gRPC: etcd's HTTP gateway dials its own member, from where the coordinator is cut off.
    """

    async def read() -> bool:
        store = cluster.store(name)
        try:
            await store.read_page(keys.CLUSTER, limit=1, revision=revision)
            return False
        except Compacted:
            return True
        finally:
            await store.close()

    return asyncio.run(read())


def there(cluster: LocalCluster, name: str, *via: str) -> bool:
    """Return whether a coordinator knows of a workload."""
    try:
        cluster.call(GET_WORKLOAD, GetWorkloadRequest(name=name, read=stale()), *via)
    except NotFound:
        return False
    return True


# --- what is asked again and again ---


def others_of(trial: Trial, name: str) -> list[str]:
    """Return every host but this one and the client's."""
    return [host for host in trial.net.hosts if host != name]


def hold(seconds: float) -> None:
    """Let a fault last."""
    time.sleep(max(0.0, seconds))


def hold_and_read(trial: Trial, until_s: float) -> None:
    """Let a fault last, and read the store's record meanwhile: that of a quarter of an hour takes long at once."""
    while (left_s := until_s - time.monotonic()) > 0:
        hold(min(RECORD_PERIOD_S, left_s))
        trial.read_record()


def wait_led(trial: Trial, since_s: float, old_term: int) -> float:
    """Wait until a coordinator tells of a term newer than the old one; return how long after `since_s` that was."""

    def look() -> float | None:
        told = (seen for seen in list(trial.load.sightings) if seen.term > old_term and seen.leader_id)
        return next((seen.at_s for seen in told if seen.at_s >= since_s), None)

    return trial.cluster.until(look, "a leader of a newer term", ELECTED_S) - since_s


def leads(cluster: LocalCluster, name: str) -> bool:
    return cluster.metric(name, "is_leader") > 0


def refuses_linearizable_reads(cluster: LocalCluster, name: str) -> bool:
    read = ReadOptions(consistency=CONSISTENCY_LINEARIZABLE)
    try:
        cluster.call(GET_WORKLOAD, GetWorkloadRequest(name=STEADY, read=read), name, timeout_s=3.0)
    except CloudlessError as error:
        return error.retryable
    return False


def running(cluster: LocalCluster, workload: str, *via: str) -> list[str]:
    return [task.desired.id for task in cluster.tasks(workload, *via) if task.state == "RUNNING"]


def primary_of(cluster: LocalCluster, agent: str) -> str:
    """Return the coordinator whose assignments an agent follows, "" if there is none now, by its own log."""
    told = re.findall(r"primary coordinator (?:is (\S+)|\S+ lost)", cluster.processes[agent].log.read_text())
    return str(told[-1]) if told else ""


def primary_is(cluster: LocalCluster, agent: str, name: str) -> bool:
    return primary_of(cluster, agent) == name


def newer(cluster: LocalCluster, agent: str, revision: int) -> int:
    """Return the revision an agent has seen if it is newer than `revision`, else 0."""
    seen = head_of(cluster, agent).revision_seen
    return seen if seen > revision else 0


def watch_served(trial: Trial, agent: str, name: str, seconds: float) -> str:
    """Look for so long whether a coordinator serves an agent as its primary; return how, "" if it did not."""
    began_s = time.monotonic()
    before = head_of(trial.cluster, agent)
    while time.monotonic() < began_s + seconds:
        if primary_is(trial.cluster, agent, name) and head_of(trial.cluster, agent) != before:
            return f"after {time.monotonic() - began_s:.1f} s, from {before} to {head_of(trial.cluster, agent)}"
        time.sleep(0.1)
    return ""
