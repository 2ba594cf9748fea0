"""The soak itself, briefly: passes on a sound cluster, fails on a task that is restarted, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.architecture.tree import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]

ENDS_S = 120.0
KILL_A_TASK = """
import signal, sys
from cloudless.cli.dev.orphans import find_orphans
from cloudless.cli.dev.table import send
from cloudless.testing.soak import __main__ as soak
from cloudless.testing.soak.faults import FAULTS, Injected

async def kill_a_task(ground):
    name, shim = next((n, w) for n, w in find_orphans(ground.table).items() if "steady" in n)
    send(shim, signal.SIGKILL)
    return Injected("kill " + name)

FAULTS["kill-a-task"] = kill_a_task
sys.exit(soak.main(sys.argv[1:]))
"""


def start(tmp_path: Path, *arguments: str, program: tuple[str, ...] = ("-m", "cloudless.testing.soak")) -> Any:
    more = ["--state-dir", str(tmp_path / "state"), "--json", str(tmp_path / "report.json"), "--minutes", "5"]
    command = [sys.executable, *program, *more, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(soak: Any, tmp_path: Path) -> tuple[int, str, dict[str, Any]]:
    """Return exit status, what was said, and the report; nothing of the cluster may live on."""
    try:
        said, _ = soak.communicate(timeout=ENDS_S)
    finally:
        soak.kill()
    left = [p.cmdline() for p in psutil.process_iter() if str(tmp_path) in " ".join(_command(p))]
    assert not left, f"{left}\n{said}"
    return soak.returncode, said, json.loads((tmp_path / "report.json").read_text())


def _command(process: psutil.Process) -> list[str]:
    try:
        return [*process.cmdline(), process.cwd()]
    except psutil.Error:
        return []


def test_a_sound_cluster_passes_and_the_report_says_under_what(tmp_path: Path) -> None:
    kinds = ("--only", "kill-coordinator", "--only", "update", "--only", "freeze-etcd")
    status, said, report = ended(start(tmp_path, "--rounds", "2", "--seed", "7", *kinds), tmp_path)
    assert status == 0, said
    assert report["passed"]
    assert report["findings"] == []
    assert report["seed"] == 7
    assert [r["number"] for r in report["rounds"]] == [1, 2]
    assert all(r["load"]["acks"] >= 60 and r["load"]["reads"] >= 60 for r in report["rounds"])
    figures = {sample["life"].split(" ")[0]: set(sample["figures"]) for sample in report["samples"]}
    assert {"fds", "threads", "asyncio_tasks", "agent_sessions", "state_listeners"} <= figures["coordinator-1"]
    assert {"fds", "threads", "asyncio_tasks", "rss_mb"} <= figures["agent-1"]
    assert {"fds", "threads"} <= figures["coordinator-1/etcd"]


def test_a_task_that_is_restarted_fails_the_soak(tmp_path: Path) -> None:
    soak = start(tmp_path, "--rounds", "1", "--only", "kill-a-task", program=("-c", KILL_A_TASK))
    status, said, report = ended(soak, tmp_path)
    assert status == 1, said
    assert any("task restarted" in finding for finding in report["findings"]), report["findings"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_of_a_round_it_leaves_nothing_and_reports_so_far(
    tmp_path: Path, number: signal.Signals
) -> None:
    soak = start(tmp_path, "--only", "freeze-coordinator", "--only", "freeze-etcd")
    deadline_s = time.monotonic() + ENDS_S
    while not (tmp_path / "report.json").exists():  # the first round is over, the second begins
        assert time.monotonic() < deadline_s
        assert soak.poll() is None
        time.sleep(0.05)
    soak.send_signal(number)
    status, said, report = ended(soak, tmp_path)
    assert status == 0, said
    assert report["stopped"] == f"stopped by {number.name}"
    assert len(report["rounds"]) >= 1
