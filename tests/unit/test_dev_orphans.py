"""What a dev cluster left behind is found, also while an agent that still lives deletes what it no longer needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.member import procfs
from cloudless.adapters.subprocess.attempt import Attempt, State
from cloudless.cli.dev.layout import build_layout
from cloudless.cli.dev.orphans import find_orphans
from cloudless.cli.dev.table import Table


@pytest.fixture
def shim() -> Iterator[int]:
    """Return the pid of a process that stands in for a task's shim."""
    child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], stdout=-1)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(build_layout(tmp_path))


def leave(table: Table, task_id: str, shim_pid: int, *, under: str = "tasks") -> Path:
    """Write the record of an attempt whose shim is `shim_pid`; return its directory."""
    directory = table.layout.data_dir("agent-1") / under / task_id / "1"
    directory.mkdir(parents=True)
    state = State(
        boot_id=procfs.boot_id(), shim_pid=shim_pid, shim_start_ticks=procfs.start_ticks(shim_pid) or 0, pid=0,
        start_ticks=0, started_at_ms=0, started_boottime_s=0.0,
    )  # fmt: skip
    (directory / "state.json").write_text(json.dumps(asdict(state)))
    assert Attempt(directory, task_id, 1).read_state() == state
    return directory


def test_a_living_shim_is_found_by_its_record_and_an_ended_attempt_is_not(table: Table, shim: int) -> None:
    directory = leave(table, "hello-1", shim)
    assert {name: who.pid for name, who in find_orphans(table).items()} == {"agent-1/hello-1": shim}
    (directory / "exit.json").write_text("{}")
    assert find_orphans(table) == {}


def test_what_a_task_writes_into_its_own_directories_names_no_orphan(table: Table, shim: int) -> None:
    leave(table, "forged", shim, under="tasks/hello-1/home/tasks")
    assert find_orphans(table) == {}


def test_a_directory_that_is_deleted_meanwhile_hides_no_other(
    table: Table, shim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(table, "hello-1", shim)
    (table.layout.data_dir("agent-1") / "tasks" / ".removed-old-1").mkdir()
    scandir = os.scandir

    def vanishing(path: Any) -> Any:
        if ".removed-" in str(path):
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert list(find_orphans(table)) == ["agent-1/hello-1"]
