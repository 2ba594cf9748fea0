"""The cluster of `cloudless dev up`, as a person meets it: it comes up, it heals, it leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.member import procfs
from cloudless.cli.dev.layout import build_layout
from tests.architecture.tree import ROOT

OFFSETS = (1_000, 20_000)
HELLO = ROOT / "examples" / "hello.yaml"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
]


class Cli:
    """The program, run as a process of its own against one dev cluster."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.offset = free_offset()
        self.layout = build_layout(state_dir, self.offset)
        self._environment = {**os.environ, "CLOUDLESS_CONFIG": str(state_dir.with_suffix(".config"))}

    def run(self, *words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False,
            timeout=timeout_s,
        )  # fmt: skip

    def popen(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*words),
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def argv(self, *words: str) -> list[str]:
        where = ["--state-dir", str(self.state_dir)] if words[0] == "dev" else []
        return [sys.executable, "-m", "cloudless.cli.main", *words, *where]

    def json(self, *words: str) -> Any:
        done = self.run(*words, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def eventually(look: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < deadline_s, "did not come true in time"
        time.sleep(0.2)
    return seen


def leftovers(state_dir: Path) -> list[str]:
    """Return every process that works in or names the state directory."""
    found = []
    for pid in procfs.pids():
        argv = " ".join(procfs.argv_of(pid))
        try:
            here = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        if pid != os.getpid() and (str(state_dir) in argv or here.startswith(str(state_dir))):
            found.append(f"{pid}: {argv}")
    return found


def ports_in_use(offset: int) -> list[int]:
    ports = [port for plan in build_layout(Path("unused"), offset).plans for port in plan.ports.values()]
    return [port for port in ports if procfs.listener_of(port)]


def free_offset() -> int:
    """Return a port offset of which no port is in use now: another cluster may run on this machine."""
    while ports_in_use(offset := random.randrange(*OFFSETS)):
        pass
    return offset


def keep_lines(lines: Iterable[str], kept: list[str]) -> Iterator[str]:
    """Yield lines and keep them, for whoever has to say what was said instead."""
    for line in lines:
        kept.append(line)
        yield line


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cli]:
    """A running cluster with three replicas of hello."""
    cli = Cli(tmp_path / "dev")
    done = cli.run("dev", "up", "--detach", "--port-offset", str(cli.offset), "--apply", str(HELLO), timeout_s=200)
    try:
        assert done.returncode == 0, done.stderr
        yield cli
    finally:
        cli.run("dev", "down", timeout_s=120)


def test_up_gives_one_cluster_of_three_voters_and_three_nodes_and_down_leaves_nothing(cluster: Cli) -> None:
    members = cluster.json("cluster", "members")
    assert [(m["name"], m["learner"], m["started"]) for m in members] == [
        (f"coordinator-{n}", False, True) for n in (1, 2, 3)
    ]
    assert {n["id"]: n["phase"] for n in cluster.json("node", "list")} == {f"agent-{n}": "READY" for n in (1, 2, 3)}
    assert cluster.run("cluster", "digest").returncode == 0
    tasks = cluster.json("task", "list", "--workload", "hello")
    assert len(tasks) == 3
    for task in tasks:
        observed = task["observed"]
        with urllib.request.urlopen(f"http://{observed['host']}:{observed['ports']['http']}/", timeout=5) as answer:
            assert json.load(answer)["task"] == task["desired"]["id"]

    down = cluster.run("dev", "down", "--purge", timeout_s=120)
    assert down.returncode == 0, down.stderr
    assert leftovers(cluster.state_dir) == []
    assert ports_in_use(cluster.offset) == []
    assert not cluster.state_dir.exists()


def test_a_second_up_says_that_one_runs(cluster: Cli) -> None:
    again = cluster.run("dev", "up", "--port-offset", str(cluster.offset))
    assert again.returncode == 8
    assert "runs already" in again.stderr
    assert cluster.run("dev", "status").returncode == 0


def test_killing_the_leader_and_its_etcd_gives_a_new_one_and_leaves_tasks_alone(cluster: Cli) -> None:
    before = {t["desired"]["id"]: t["observed"]["pid"] for t in cluster.json("task", "list", "-w", "hello")}
    old = cluster.json("cluster", "leader")
    assert cluster.run("dev", "kill", old["leaderId"], "--etcd").returncode == 0

    def new_leader() -> Any:
        done = cluster.run("cluster", "leader", "-o", "json")
        seen = json.loads(done.stdout) if done.returncode == 0 else {}
        return seen if seen.get("term", 0) > old["term"] else None

    assert eventually(new_leader)["leaderId"] != old["leaderId"]
    assert cluster.run("dev", "start", old["leaderId"]).returncode == 0
    eventually(lambda: cluster.run("cluster", "digest").returncode == 0)
    assert {t["desired"]["id"]: t["observed"]["pid"] for t in cluster.json("task", "list", "-w", "hello")} == before


def test_down_and_up_again_keeps_what_was_asked_for(cluster: Cli) -> None:
    assert cluster.run("workload", "scale", "hello", "2", "--wait").returncode == 0
    assert cluster.run("dev", "down", timeout_s=120).returncode == 0
    again = cluster.run("dev", "up", "--detach", "--port-offset", str(cluster.offset), timeout_s=200)
    assert again.returncode == 0, again.stderr
    eventually(lambda: cluster.json("workload", "list")[0]["summary"]["running"] == 2)


def test_a_drill_of_every_kind_finds_nothing(cluster: Cli, tmp_path: Path) -> None:
    figures = tmp_path / "drill.json"
    done = cluster.run("dev", "drill", "--rounds", "5", "--json", str(figures), timeout_s=350)
    document = json.loads(figures.read_text(encoding="utf-8"))
    assert document["findings"] == []
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = ["kill-leader", "kill-raft-leader", "kill-agent", "kill-etcd", "transfer"]
    assert [r["kind"] for r in document["rounds"]] == kinds


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_foreground_cluster_without_a_trace(tmp_path: Path, number: signal.Signals) -> None:
    cli = Cli(tmp_path / "dev")
    up = cli.popen("dev", "up", "--port-offset", str(cli.offset))
    try:
        assert up.stdout is not None
        said: list[str] = []
        assert any("Ctrl-C ends it all" in line for line in keep_lines(up.stdout, said)), "".join(said)
        up.send_signal(number)
        up.communicate(timeout=120)
        assert up.returncode == 0
    finally:
        up.kill()
        up.wait()
        cli.run("dev", "down", timeout_s=120)
    assert leftovers(cli.state_dir) == []
    assert ports_in_use(cli.offset) == []
