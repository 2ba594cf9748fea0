"""What runs because of a cluster: its own processes, their descriptors and threads, and the processes of its tasks."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from cloudless.adapters.member import procfs
from cloudless.core.task_environment import TASK_ID_VARIABLE
from tests.integration.cluster import LocalCluster

RUN_VARIABLE = "FAULTS_RUN"
"""In the environment of every task of a trial, with a value of its own: what has it belongs to this trial."""


@dataclass(frozen=True, slots=True)
class Running:
    """A task's process, told from every other one by its start time."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Holding:
    """What a process holds open."""

    fds: int
    threads: int


def tasks_running(run_id: str) -> dict[str, list[Running]]:
    """Return, by task id, the processes that this trial's tasks were started as, without what those started."""
    found: dict[str, list[Running]] = defaultdict(list)
    for pid in procfs.pids():
        environment = _environment(pid)
        if environment.get(RUN_VARIABLE) != run_id:
            continue
        ticks = procfs.start_ticks(pid)
        if ticks is not None and _group_of(pid) == pid:
            found[environment.get(TASK_ID_VARIABLE, "")].append(Running(pid, ticks))
    return dict(found)


def family(run_id: str, task_id: str) -> list[int]:
    """Return every process that has a task's environment, whatever group it went to."""
    wanted = {(RUN_VARIABLE, run_id), (TASK_ID_VARIABLE, task_id)}
    return [pid for pid in procfs.pids() if wanted <= _environment(pid).items()]


def holdings(cluster: LocalCluster) -> dict[str, Holding]:
    """Return what each living process of the cluster holds open, connections of agents with a session not counted."""
    found = {}
    for name, process in cluster.processes.items():
        if process.lives:
            home = Path(f"/proc/{process.pid}")
            sessions = int(cluster.metric(name, "agent_sessions")) if process.role == "coordinator" else 0
            found[name] = Holding(len(list((home / "fd").iterdir())) - sessions, len(list((home / "task").iterdir())))
    return found


def strangers(cluster: LocalCluster) -> list[str]:
    """Return the processes that work in this cluster's directory and belong to nothing it knows."""
    known = {process.pid for process in cluster.processes.values() if process.lives}
    known |= {etcd.pid for process in cluster.coordinators if (etcd := cluster.etcd_of(process.name))}
    known |= {pid for agent in cluster.agents for pid in cluster.task_pids(agent.name)}
    root, found = str(cluster.root), []
    for pid in procfs.pids():
        words = " ".join(procfs.argv_of(pid))
        ours = root in words or any(root in value for value in _environment(pid).values())
        if ours and procfs.start_ticks(pid) and not {pid, _group_of(pid)} & known and pid != os.getpid():
            found.append(f"{pid}: {words[:200]}")
    return found


def command_lines(cluster: LocalCluster) -> list[tuple[int, str]]:
    """Return (pid, command line) of every process of the cluster, tasks and their supervisors included."""
    pids = {process.pid for process in cluster.processes.values() if process.lives}
    pids |= {etcd.pid for process in cluster.coordinators if (etcd := cluster.etcd_of(process.name))}
    pids |= {pid for agent in cluster.agents for pid in cluster.task_pids(agent.name)}
    return [(pid, " ".join(procfs.argv_of(pid))) for pid in sorted(pids)]


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _environment(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in raw.split(b"\0"))
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}
