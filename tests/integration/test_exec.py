"""`task exec` on a live cluster: real commands, terminals, coordinators that die, and nothing left on the node."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cloudless.adapters.subprocess.launches import MARK_VARIABLE
from cloudless.cli.methods import DELETE_WORKLOAD, LIST_EVENTS
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest, Task
from etcd.find import Found
from tests.architecture.tree import ROOT
from tests.integration.cloudless_cli import run_cli
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

NAME = "host"
AGENT = "agent-1"
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("exec"), binary.path)
    made.add_coordinators()
    made.found_together()
    made.add_agent(AGENT)
    made.start(*made.processes)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(living: LocalCluster) -> Iterator[LocalCluster]:
    living.start(*(name for name, process in living.processes.items() if not process.lives))
    living.wait_ready()
    yield living
    living.start(*(name for name, process in living.processes.items() if not process.lives))
    living.wait_formed()
    living.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name=NAME))
    living.until(lambda: not living.tasks(NAME, all=True), "no task left")


@pytest.fixture
def task(cluster: LocalCluster) -> Task:
    cluster.apply(manifest_of(NAME, env={"OWN": "mine"}))
    return cluster.until(lambda: next((t for t in cluster.tasks(NAME) if t.state == "RUNNING"), None), "a task")


@contextlib.contextmanager
def started(cluster: LocalCluster, *words: str, via: str = "", **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start `cloudless WORDS` and give its process, which is ended at the end."""
    addresses = [cluster.processes[via].address()] if via else cluster.api_addresses()
    environment = {"PATH": os.environ["PATH"], "CLOUDLESS_COORDINATORS": ",".join(addresses)}
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudless.cli.main", *words], env=environment, cwd=ROOT,
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def marked(task: Task) -> list[psutil.Process]:
    """Return the commands beside a task, and what they started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            environment = process.environ()
            if MARK_VARIABLE in environment and environment.get("CLOUDLESS_TASK_ID") == task.desired.id:
                found.append(process)
    return found


def test_a_command_runs_beside_a_task_through_any_coordinator(cluster: LocalCluster, task: Task) -> None:
    for name in COORDINATORS:
        script = "echo $OWN in $PWD; echo oops >&2; exit 5"
        with started(cluster, "task", "exec", task.desired.id, "--", "sh", "-c", script, via=name) as process:
            out, err = process.communicate(timeout=DEADLINE_S)
        home = cluster.processes[AGENT].data_dir / "tasks" / task.desired.id / "home"
        assert (process.returncode, out.decode(), err) == (5, f"mine in {home}\n", b"oops\n")
    said = run_cli(cluster, "workload", "exec", NAME, "--", "sh", "-c", "kill -9 $$")
    assert (said.code, said.text) == (128 + signal.SIGKILL, "")
    assert run_cli(cluster, "task", "exec", task.desired.id, "--", "no-such-command").code == 127
    assert run_cli(cluster, "task", "exec", "nobody-0-1", "--", "true").code == 4
    assert run_cli(cluster, "workload", "exec", NAME, "--slot", "7", "--", "true").code == 4
    events = cluster.call(LIST_EVENTS, ListEventsRequest()).events
    told = [event.message for event in events if event.kind == "TaskExec"]
    assert told[:3] == [f"runs 'sh' beside it on {AGENT}"] * 3
    assert not [message for message in told if "OWN" in message]


def test_input_of_any_size_goes_through_unharmed(cluster: LocalCluster, task: Task, tmp_path: Path) -> None:
    given = os.urandom(1024) * 8 * 1024
    (tmp_path / "given").write_bytes(given)
    with (
        (tmp_path / "given").open("rb") as file,
        started(cluster, "task", "exec", "-i", task.desired.id, "--", "cat", stdin=file) as process,
    ):
        began_s = time.monotonic()
        out, err = process.communicate(timeout=DEADLINE_S)
        print(f"8 MiB there and back in {time.monotonic() - began_s:.2f} s")
    assert (process.returncode, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(given).digest()


def test_who_does_not_listen_holds_the_command_up_and_leaving_ends_it(cluster: LocalCluster, task: Task) -> None:
    agent = psutil.Process(cluster.processes[AGENT].pid)
    before_mb = agent.memory_info().rss >> 20
    with started(cluster, "task", "exec", task.desired.id, "--", "sh", "-c", "(setsid yes &); yes") as process:
        cluster.until(lambda: len(marked(task)) >= 2, "the commands")
        head = process.stdout.read(1 << 20) if process.stdout else b""
        assert head.startswith(b"y\n")
        waiting = {"sleep", "disk-sleep", "sleeping", "idle"}
        cluster.until(lambda: all(one.status() in waiting for one in marked(task)), "all of them wait")
        grown_mb = {p.name: psutil.Process(p.pid).memory_info().rss >> 20 for p in cluster.coordinators}
        print(f"agent {before_mb} MB, then {agent.memory_info().rss >> 20} MB; coordinators {grown_mb} MB")
        assert (agent.memory_info().rss >> 20) - before_mb < 50
    cluster.until(lambda: not marked(task), "nothing left on the node")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_coordinator_that_goes_away_ends_the_command_and_says_so(
    cluster: LocalCluster, task: Task, number: signal.Signals
) -> None:
    via = cluster.followers()[0]
    with started(cluster, "task", "exec", task.desired.id, "--", "sleep", "600", via=via) as process:
        cluster.until(lambda: marked(task), "the command")
        cluster.signal(via, number)
        assert process.wait(timeout=DEADLINE_S) == 3
    cluster.until(lambda: not marked(task), "nothing left on the node")
    with contextlib.suppress(AssertionError):
        cluster.exit_of(via)


def test_an_agent_that_is_killed_takes_the_command_with_it_and_not_the_task(cluster: LocalCluster, task: Task) -> None:
    script = "setsid sleep 600 & sleep 600"
    with started(cluster, "task", "exec", task.desired.id, "--", "sh", "-c", script) as process:
        cluster.until(lambda: len(marked(task)) >= 3, "the command")
        cluster.kill(AGENT)
        assert process.wait(timeout=DEADLINE_S) == 3
        assert process.stderr
        assert b"broke" in process.stderr.read()
    cluster.until(lambda: not marked(task), "nothing left on the node")
    assert psutil.pid_exists(task.observed.pid)


class Terminal:
    """A person at a terminal of their own, 100 by 30 characters."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.size(100, 30)
        self.seen = b""

    def size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def until(self, words: str) -> None:
        """Read until `words` have been shown. Raises AssertionError with what was."""
        deadline_s = time.monotonic() + DEADLINE_S
        while words.encode() not in self.seen:
            left_s = deadline_s - time.monotonic()
            shown, _, _ = select.select([self.ours], [], [], max(0.0, left_s))
            assert shown, self.seen.decode(errors="replace")
            self.seen += os.read(self.ours, 4096)
        self.seen = self.seen.partition(words.encode())[2]


def test_a_shell_at_a_terminal_takes_keys_follows_its_size_and_puts_the_terminal_back(
    cluster: LocalCluster, task: Task
) -> None:
    terminal = Terminal()
    before = termios.tcgetattr(terminal.theirs)
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.theirs)
    words = ("task", "exec", "-it", task.desired.id, "--", "sh")
    with started(cluster, *words, start_new_session=True, **streams) as process:
        cluster.until(lambda: marked(task), "the shell")
        terminal.type("echo $((6 * 7)) $OWN; stty size\r")
        terminal.until("42 mine")
        terminal.until("30 100")
        terminal.size(77, 22)
        process.send_signal(signal.SIGWINCH)
        cluster.until(lambda: _asked_size(terminal) == "22 77", "the new size")
        terminal.type("sleep 600\r")
        cluster.until(lambda: "sleep" in [one.name() for one in marked(task)], "sleep")
        terminal.type("\x03echo $?-after\r")
        terminal.until("130-after")
        terminal.type("exit 9\r")
        assert process.wait(timeout=DEADLINE_S) == 9
    assert termios.tcgetattr(terminal.theirs) == before
    assert not marked(task)


def _asked_size(terminal: Terminal) -> str:
    terminal.type("echo size $(stty size) end\r")
    terminal.until("\nsize ")
    while b" end" not in terminal.seen:
        terminal.seen += os.read(terminal.ours, 4096)
    size, _, terminal.seen = terminal.seen.partition(b" end")
    return size.decode()
