"""Find what a dev cluster's processes left behind when they were killed: etcd members and tasks.

An etcd is known by its pid file or by running on one of our data directories; a task by the record next to its
output, which names its supervising shim with pid, start time and boot. Nothing else is ever touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cloudless.adapters.member import procfs
from cloudless.adapters.member.pidfile import Identity, identify
from cloudless.adapters.subprocess.attempt import Attempt, State, end_leftovers
from cloudless.cli.dev.table import Table


def find_orphans(table: Table) -> dict[str, Identity]:
    """Return the living leftovers, by a name for people. A shim that is asked to end ends its whole task."""
    found = {}
    for plan in table.layout.coordinators:
        if etcd := table.etcd_of(plan.name):
            found[f"{plan.name}/etcd"] = etcd
    for agent, task_id, state in _attempts(table):
        shim = identify(state.shim_pid) if state.lives() else None
        if shim:
            found[f"{agent}/{task_id}"] = shim
    return found


def end_stray_children(table: Table) -> None:
    """Kill what tasks had started and their killed shims could not end."""
    for _, task_id, state in _attempts(table):
        if state.boot_id == procfs.boot_id() and not state.lives():
            end_leftovers(task_id, state)


def _attempts(table: Table) -> Iterator[tuple[str, str, State]]:
    """Yield (agent, task id, state) of every attempt on record that has no recorded end."""
    for agent in table.layout.agents:
        for directory in sorted(_attempt_directories(table.layout.data_dir(agent.name))):
            task_id = directory.parent.name
            state = Attempt(directory, task_id, 0).read_state()
            if state and not (directory / "exit.json").exists():
                yield agent.name, task_id, state


def _attempt_directories(data_dir: Path) -> Iterator[Path]:
    # Not glob: that raises when an agent that still lives deletes a directory under it.
    for place, below, files in os.walk(data_dir):
        directory = Path(place)
        if directory.parent.parent.name == "tasks":
            below.clear()  # what lies there is the task's own
            if "state.json" in files:
                yield directory
