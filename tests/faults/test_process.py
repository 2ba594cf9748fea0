"""What happens when a process of the cluster dies, freezes, or dies again and again."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cloudless.adapters.member import procfs
from cloudless.adapters.member.pidfile import identify, write_pidfile
from cloudless.cli.dev.table import send
from cloudless.cli.methods import DELETE_WORKLOAD
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest
from tests.faults.rig.leading import leader_and_term, others_than, pass_time, tells_of, wait_led
from tests.faults.rig.scenario import scenario
from tests.faults.rig.tasks import SPREAD, ends_told, outlive_frozen, run_workload, running, wait_running
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster

FROZEN_S = 8.0
"""Longer than the lease of the default profile, 5 s, and the time-out of a node, 4 s."""
UNREADY_S = 10.0
LOOP_S = 12.0
BACK_OFF_MAX_S = 10.0


@scenario(1, rounds=2)
def test_a_leader_killed_with_its_etcd_is_followed_by_another(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        old, term = leader_and_term(trial)
        trial.load_up()
        began_s = trial.note(f"kill {old} and its etcd")
        cluster.kill(old, etcd=True)
        trial.figure("new_leader_s", wait_led(trial, began_s, term, *others_than(cluster, old)))
        trial.load_up()
        trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        cluster.start(old)
        trial.settle()


@scenario(1, rounds=2)
def test_a_leader_killed_alone_leaves_its_etcd_voting_and_adopts_it_again(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        old, term = leader_and_term(trial)
        etcd = cluster.etcd_of(old)
        trial.load_up()
        began_s = trial.note(f"kill {old} alone")
        cluster.kill(old)
        trial.figure("new_leader_s", wait_led(trial, began_s, term, *others_than(cluster, old)))
        trial.load_up()
        trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        cluster.start(old)
        trial.settle()
        assert cluster.etcd_of(old) == etcd, "the very etcd that it left behind"


@scenario(2)
def test_a_leader_frozen_past_its_lease_steps_down_before_it_commands_anybody(trial: Trial) -> None:
    """That none of its writes stands after one of the newer term is what the oracle of terms checks."""
    cluster = trial.start()
    for _ in trial.rounds():
        old, term = leader_and_term(trial)
        run_workload(trial, "moving", 2)
        trial.load_up()
        began_s = trial.note(f"freeze {old}")
        cluster.signal(old, signal.SIGSTOP)
        try:
            via = others_than(cluster, old)
            trial.figure("new_leader_s", wait_led(trial, began_s, term, *via))
            # Work for whoever leads, so that the frozen one has something left to write when it thaws.
            scaled = run_workload(trial, "moving", 5)
            pass_time(cluster, FROZEN_S - (time.monotonic() - began_s))
            trial.load_up()
        finally:
            thawed_s = trial.note(f"thaw {old}")
            cluster.signal(old, signal.SIGCONT)
        cluster.wait_http(old, "/follower", 200)
        trial.figure("stepped_down_s", time.monotonic() - thawed_s)
        trial.settle()
        assert running(cluster, "moving") == scaled
        assert [cluster.metric(one.name, "is_leader") for one in cluster.coordinators].count(1.0) == 1


@scenario(3, rounds=2)
def test_a_killed_etcd_on_the_leaders_host_is_started_again_and_nothing_is_lost(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        victim, _term = leader_and_term(trial)
        etcd = cluster.etcd_of(victim)
        assert etcd is not None
        trial.load_up()
        began_s = trial.note(f"kill the etcd of {victim}")
        send(etcd, signal.SIGKILL)
        cluster.until(lambda: (now := cluster.etcd_of(victim)) and now != etcd, "another etcd runs there")
        trial.figure("restarted_s", time.monotonic() - began_s)
        trial.load_up()
        trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        trial.settle()


@scenario(4, rounds=2)
def test_a_frozen_etcd_is_noticed_and_clients_move_on(trial: Trial) -> None:
    """Once under the leader, once under a follower."""
    cluster = trial.start()
    for number in trial.rounds():
        leader, _ = leader_and_term(trial)
        victim = leader if number % 2 else others_than(cluster, leader)[0]
        etcd = cluster.etcd_of(victim)
        assert etcd is not None
        trial.load_up()
        began_s = trial.note(f"freeze the etcd of {victim}")
        send(etcd, signal.SIGSTOP)
        try:
            cluster.wait_http(victim, "/readyz", 503, UNREADY_S)
            trial.figure("unready_s", time.monotonic() - began_s)
            assert cluster.http(victim, "/livez") == 200, "the coordinator itself is well"
            assert cluster.status(victim).health == "unavailable"
            trial.load_up()
            trial.figure("gap_s", trial.load.longest_gap_s(began_s))
            assert all(cluster.http(name, "/readyz") == 200 for name in others_than(cluster, victim))
            assert all(tells_of(cluster, one.name, victim, "is cut off") for one in cluster.coordinators)
        finally:
            send(etcd, signal.SIGCONT)
        trial.settle()


@scenario(5)
def test_an_etcd_that_ends_at_every_start_costs_little_and_is_told(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        leader, _ = leader_and_term(trial)
        victim = others_than(cluster, leader)[0]
        trial.load_up()
        trial.note(f"make the etcd of {victim} unable to start")
        mend = break_database(cluster, victim)
        try:
            used_s = cpu_s(cluster.processes[victim].pid)
            pass_time(cluster, LOOP_S)
            used_s = cpu_s(cluster.processes[victim].pid) - used_s
            starts = cluster.metric(victim, "etcd_restarts")
            trial.figure("starts", starts)
            trial.figure("cpu_share", used_s / LOOP_S)
            assert 3 <= starts <= 15, "it is tried, with back-off"
            assert used_s < 0.4 * LOOP_S
            waits_s = [float(text) for text in re.findall(r"starting again in ([\d.]+) s", told(cluster, victim))]
            assert max(waits_s) <= BACK_OFF_MAX_S
            assert max(waits_s) > 10 * min(waits_s), "each wait is longer than the one before"
            assert cluster.http(victim, "/readyz") == 503
            assert all(tells_of(cluster, one.name, victim, "has no etcd") for one in cluster.coordinators)
            trial.load_up()
        finally:
            mend()
        trial.settle(within_s=40)


@scenario(6, rounds=2)
def test_tasks_outlive_their_killed_agents_and_are_adopted(trial: Trial) -> None:
    cluster = trial.start(agents=3, tasks=6)
    agents = [agent.name for agent in cluster.agents]
    for _ in trial.rounds():
        trial.load_up()
        trial.note("kill all agents")
        cluster.kill(*agents)
        cluster.until(lambda: sessions(cluster) == 0, "the agents are missed")
        began_s = trial.note("start them again")
        cluster.start(*agents)
        cluster.until(lambda: sessions(cluster) == 2 * len(agents), "every agent has its two sessions")
        trial.figure("adopted_s", time.monotonic() - began_s)
        trial.settle()


@scenario(7)
def test_a_frozen_agent_is_replaced_and_makes_way_when_it_thaws(trial: Trial) -> None:
    cluster = trial.start()
    for number in trial.rounds():
        name = f"short-{number}"
        before = run_workload(trial, name, 4, lostAfter="1s", **SPREAD)
        victim = "agent-2"
        outlive_frozen(trial, name, before, victim)
        pids = {seen.pid for seen in before.values() if seen.node_id == victim}
        cluster.until(lambda: not any(procfs.start_ticks(pid) for pid in pids), "the frozen node's own have ended")


@scenario(8, rounds=3)
def test_a_killed_task_is_started_again_with_back_off_and_its_end_is_told_once(trial: Trial) -> None:
    cluster = trial.start()
    policy = {"restartPolicy": {"policy": "ON_FAILURE", "maxRetries": 0, "backoff": "0.5s"}}
    for number in trial.rounds():
        name = f"mortal-{number}"
        ((task, seen),) = run_workload(trial, name, 1, **policy).items()
        trial.load_up()
        waits_s = []
        for _attempt in (1, 2):
            killed_s = trial.note(f"kill task {task} of attempt {seen.attempt}")
            os.kill(seen.pid, signal.SIGKILL)
            seen = cluster.until(
                lambda old=seen: now if (now := running(cluster, name).get(task)) not in (None, old) else None,  # type: ignore[misc]
                "it runs again",
            )
            waits_s.append(time.monotonic() - killed_s)
        trial.figure("first_restart_s", waits_s[0])
        trial.figure("second_restart_s", waits_s[1])
        assert waits_s[1] > waits_s[0] > 0.5, "each wait is longer"
        trial.settle()
        ends = ends_told(cluster, task)
        assert len(ends) == 2, ends
        assert all("signal 9" in end for end in ends), ends


@scenario(10)
def test_a_pid_given_away_after_a_reboot_is_neither_adopted_nor_killed(trial: Trial) -> None:
    """An etcd and a task whose notes name a stranger's pid: as after a reboot that gave it away."""
    cluster = trial.start()
    strangers = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    try:
        for number in trial.rounds():
            name = f"rebooted-{number}"
            victim, agent = random.choice(cluster.coordinators).name, "agent-1"
            # Not replaced, however long its agent takes to come back.
            before = run_workload(trial, name, 2, lostAfter="10m", **SPREAD)
            (task,) = [task for task, seen in before.items() if seen.node_id == agent]
            trial.load_up()
            trial.note(f"{victim} and {agent} reboot")
            cluster.kill(victim, etcd=True)
            cluster.kill(agent)
            rename_etcd(cluster, victim, strangers[0].pid)
            rename_task(cluster, agent, task, before[task].pid, strangers[1].pid)
            cluster.start(victim, agent)
            trial.settle()
            cluster.until(lambda: now_runs(cluster, name, task, strangers[1].pid), "the task runs, as itself")
            etcd = cluster.etcd_of(victim)
            assert etcd is not None
            assert etcd.pid != strangers[0].pid
            assert all(stranger.poll() is None for stranger in strangers), "nobody touched the strangers"
            cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=name))
            wait_running(cluster, name, 0)
            assert all(stranger.poll() is None for stranger in strangers), "nobody touched the strangers"
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()


# --- what the scenarios do ---


def sessions(cluster: LocalCluster) -> int:
    return int(sum(cluster.metric(process.name, "agent_sessions") for process in cluster.coordinators))


def told(cluster: LocalCluster, name: str) -> str:
    return cluster.processes[name].log.read_text(errors="replace")


def cpu_s(pid: int) -> float:
    """Return the processor time a process and its ended children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def break_database(cluster: LocalCluster, name: str) -> Callable[[], None]:
    """Kill an etcd and put something else in its database's place; return what puts it back.

    The coordinator is held still meanwhile, so that it cannot be quicker.
    """
    etcd = cluster.etcd_of(name)
    assert etcd is not None
    database = cluster.datadir(name).etcd_dir / "member" / "snap" / "db"
    away = database.with_name("db.away")
    cluster.signal(name, signal.SIGSTOP)
    try:
        send(etcd, signal.SIGKILL)
        cluster.until(lambda: not etcd.lives(), "etcd is dead")
        database.rename(away)
        database.mkdir()
    finally:
        cluster.signal(name, signal.SIGCONT)

    def mend() -> None:
        database.rmdir()
        away.rename(database)

    return mend


def rename_etcd(cluster: LocalCluster, coordinator: str, pid: int) -> None:
    """Let the note of a coordinator's etcd name this process."""
    identity = identify(pid)
    assert identity is not None
    write_pidfile(cluster.datadir(coordinator).pidfile, replace(identity, start_ticks=identity.start_ticks - 1))


def rename_task(cluster: LocalCluster, agent: str, task: str, own_pid: int, pid: int) -> None:
    """End a task and its supervisor; let their note name this process."""
    (path,) = cluster.processes[agent].data_dir.glob(f"**/tasks/{task}/*/state.json")
    state = json.loads(path.read_text())
    for old in (state["shim_pid"], own_pid):
        os.kill(old, signal.SIGKILL)
    cluster.until(lambda: not procfs.start_ticks(state["shim_pid"]), "the supervisor is dead")
    ticks = procfs.start_ticks(pid) or 0
    renamed = {"shim_pid": pid, "pid": pid, "shim_start_ticks": ticks - 1, "start_ticks": ticks - 1}
    path.write_text(json.dumps(state | renamed))


def now_runs(cluster: LocalCluster, name: str, task: str, not_pid: int) -> bool:
    seen = running(cluster, name).get(task)
    return seen is not None and seen.pid != not_pid and seen.attempt > 1
