"""The dev cluster's own machinery with stand-ins for its processes: layout, record, preflight, down."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cloudless.adapters.member.pidfile import Identity, identify
from cloudless.cli.dev.down import purge, take_down
from cloudless.cli.dev.layout import AgentPlan, Layout, build_layout
from cloudless.cli.dev.preflight import keep_ports, require_ready
from cloudless.cli.dev.progress import Progress
from cloudless.cli.dev.table import Table, read_record, rss_mb, send, wait_gone
from cloudless.cli.main import cli
from cloudless.errors import DataDirLocked, NotFound, PortInUse, StartupError
from cloudless.settings import read_agent_settings, read_coordinator_settings

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


@pytest.fixture
def offset() -> int:
    """Return a port offset of this test process's own, away from real clusters."""
    return 15_000 + os.getpid() % 8_000  # all ports below those of outgoing connections


@pytest.fixture
def table(tmp_path: Path, offset: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    monkeypatch.setattr(Layout, "argv", lambda self, name: SLEEPER)
    made = Table(build_layout(tmp_path / "dev", offset))
    yield made
    for who in made.living().values():
        send(who, signal.SIGKILL)
    wait_gone(made, made.living(), 5.0)


# --- layout -------------------------------------------------------------------------------------


def test_the_seeds_ports_and_capacities(tmp_path: Path) -> None:
    layout = build_layout(tmp_path)
    assert layout.api_addresses == ("127.0.0.1:8080", "127.0.0.1:8082", "127.0.0.1:8084")
    assert [tuple(c.ports.values()) for c in layout.coordinators] == [
        (8080, 8081, 9090, 3010, 3020, 8070, 8053),
        (8082, 8083, 9091, 3011, 3021, 8071, 8054),
        (8084, 8085, 9092, 3012, 3022, 8072, 8055),
    ]
    assert [tuple(a.ports.values()) for a in layout.agents] == [(8091, 9101), (8092, 9102), (8093, 9103)]
    assert [(a.zone, a.cpu_cores, a.memory_mb, a.storage_gb, a.bandwidth_mbps) for a in layout.agents] == [
        ("zone-a", 2, 2048, 10, 100),
        ("zone-b", 4, 4096, 20, 200),
        ("zone-a", 1, 1024, 5, 50),
    ]
    assert layout.agents[2].type == "edge"


@pytest.mark.parametrize("shift", [0, 1000, 20_000])
def test_no_port_is_given_twice(tmp_path: Path, shift: int) -> None:
    ports = Counter(port for plan in build_layout(tmp_path, shift).plans for port in plan.ports.values())
    assert max(ports.values()) == 1
    assert len(ports) == 27


def test_every_process_gets_settings_that_are_accepted(tmp_path: Path) -> None:
    layout = build_layout(tmp_path, 100)
    all_three = [read_coordinator_settings(layout.environment(c.name, {}, "/x/etcd")) for c in layout.coordinators]
    assert all(s.bootstrap_expect == 3 and s.join_addresses == layout.api_addresses for s in all_three)
    assert all_three[0].etcd_client_address == "127.0.0.1:3120"
    agent = read_agent_settings(layout.environment("agent-3", {}, ""))
    assert agent.coordinators == layout.api_addresses
    assert (agent.capacity.cpu_millicores, agent.capacity.memory_mb, agent.zone) == (1000, 1024, "zone-a")
    assert agent.stop_tasks_on_exit


def test_how_to_log_and_trace_is_passed_on(tmp_path: Path) -> None:
    environ = {"CLOUDLESS_LOG_FORMAT": "json", "CLOUDLESS_OTLP_ENDPOINT": "http://c:4318", "CLOUDLESS_TRACE_RATIO": ""}
    layout = build_layout(tmp_path)
    for settings in (
        read_coordinator_settings(layout.environment("coordinator-1", environ, "")),
        read_agent_settings(layout.environment("agent-1", environ, "")),
    ):
        assert (settings.log_format, settings.otlp_endpoint) == ("json", "http://c:4318/v1/traces")
        assert settings.trace_ratio == 1.0


def test_children_inherit_little(tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "HOME": "/h", "XDG_CACHE_HOME": "/c", "SECRET": "s", "CLOUDLESS_COORDINATORS": "a:1"}
    given = build_layout(tmp_path).environment("agent-1", environ, "")
    inherited = {name for name in given if not name.startswith("CLOUDLESS_")} - {"PYTHONPATH"}
    assert inherited == {"PATH", "HOME", "XDG_CACHE_HOME"}
    assert "CLOUDLESS_COORDINATORS" not in given


# --- the record of processes --------------------------------------------------------------------


def test_a_started_process_is_recorded_and_found_by_another_command(table: Table) -> None:
    who = table.start("agent-1")
    other = Table.open(table.layout.state_dir)
    assert other.living() == {"agent-1": who}
    assert other.layout.port_offset == table.layout.port_offset
    deadline_s = time.monotonic() + 10
    while rss_mb(who.pid) <= 1:  # it is known from its first moment, before it has loaded anything
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert table.layout.state_dir.stat().st_mode & 0o777 == 0o700


def test_a_running_process_is_not_started_twice(table: Table) -> None:
    table.start("agent-1")
    with pytest.raises(DataDirLocked, match="runs already"):
        table.start("agent-1")


def test_a_killed_process_is_seen_to_be_gone_and_may_start_again(table: Table) -> None:
    first = table.start("agent-1")
    send(first, signal.SIGKILL)
    assert wait_gone(table, {"agent-1": first}, 5.0) == {}
    assert table.living() == {}
    assert table.exit_text(first.pid) == "killed by SIGKILL"
    assert table.start("agent-1").pid != first.pid


def test_a_stranger_with_a_recorded_pid_is_left_alone() -> None:
    child = subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL)
    try:
        who = identified(child.pid)
        strangers = [
            replace(who, start_ticks=who.start_ticks + 1),
            replace(who, boot_id="other"),
            replace(who, argv=("x",)),
        ]
        assert not any(send(stranger, signal.SIGKILL) for stranger in strangers)
        assert child.poll() is None
        assert send(who, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"port_offset": 0}', '{"port_offset":0,"etcd_binary":"","processes":{"a":{}}}']
)
def test_a_record_that_makes_no_sense_is_no_record(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content, encoding="utf-8")
    assert read_record(path) is None


def test_a_directory_without_a_cluster_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no dev cluster"):
        Table.open(tmp_path)


# --- preflight ----------------------------------------------------------------------------------


def test_a_running_cluster_is_not_started_again(table: Table) -> None:
    table.start("coordinator-1")
    with pytest.raises(StartupError, match="runs already") as caught:
        require_ready(table)
    assert "dev down" in caught.value.hint


def test_every_port_taken_is_named_with_its_owner(table: Table) -> None:
    ports = [table.layout.coordinators[0].api_port, table.layout.agents[1].metrics_port]
    listeners = [socket.create_server(("127.0.0.1", port)) for port in ports]
    try:
        with pytest.raises(PortInUse) as caught:
            require_ready(table)
    finally:
        for listener in listeners:
            listener.close()
    assert all(str(port) in caught.value.message for port in ports)
    assert f"pid {os.getpid()}" in caught.value.message
    assert "--port-offset" in caught.value.hint


def test_data_is_not_started_on_other_ports(table: Table) -> None:
    table.layout.state_dir.mkdir()
    keep_ports(table.layout)
    require_ready(table)
    moved = Table(build_layout(table.layout.state_dir, table.layout.port_offset + 1))
    with pytest.raises(StartupError, match=f"--port-offset {table.layout.port_offset}"):
        require_ready(moved)


def test_free_ports_and_no_cluster_pass(table: Table) -> None:
    require_ready(table)


# --- down ---------------------------------------------------------------------------------------


def test_down_ends_everything_and_may_be_repeated(table: Table) -> None:
    started = [table.start(name) for name in table.layout.names]
    take_down(table, Progress())
    take_down(table, Progress())
    assert not any(who.lives() for who in started)
    assert not table.layout.record_file.exists()


def test_down_kills_what_does_not_end(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layout, "argv", lambda self, name: STUBBORN)
    monkeypatch.setattr("cloudless.cli.dev.down._AGENTS_S", 0.5)
    who = table.start("agent-1")
    take_down(table, Progress())
    assert not who.lives()


def test_down_ends_a_stopped_process(table: Table) -> None:
    who = table.start("coordinator-2")
    send(who, signal.SIGSTOP)
    take_down(table, Progress())
    assert not who.lives()


def test_down_ends_the_etcd_a_killed_coordinator_left(table: Table) -> None:
    data_dir = table.layout.data_dir("coordinator-1")
    data_dir.mkdir(parents=True)
    child = subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL)
    try:
        who = identified(child.pid)
        (data_dir / "etcd.pid").write_text(json.dumps(asdict(who)), encoding="utf-8")
        take_down(table, Progress())
        assert child.wait(5) == -signal.SIGTERM
    finally:
        child.kill()
        child.wait()


def test_purge_deletes_what_is_ours_and_nothing_else(table: Table) -> None:
    table.start("agent-1")
    take_down(table, Progress())
    stranger = table.layout.state_dir / "notes.txt"
    stranger.write_text("mine", encoding="utf-8")
    purge(table.layout.state_dir)
    assert [path.name for path in table.layout.state_dir.iterdir()] == ["notes.txt"]
    stranger.unlink()
    purge(table.layout.state_dir)
    assert not table.layout.state_dir.exists()


def identified(pid: int) -> Identity:
    """Return who `pid` is; a process just forked shows no command line until its exec is done."""
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        if who := identify(pid):
            return who
    raise AssertionError(f"process {pid} never showed its command line")


# --- commands -----------------------------------------------------------------------------------


def test_down_without_a_cluster_is_no_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["dev", "down", "--state-dir", str(tmp_path / "none")])
    assert result.exit_code == 0, result.output


def test_kill_and_start_by_name(table: Table) -> None:
    who = table.start("agent-2")
    where = ["--state-dir", str(table.layout.state_dir)]
    killed = CliRunner().invoke(cli, ["dev", "kill", "agent-2", *where])
    assert killed.exit_code == 0
    assert f"pid {who.pid}" in killed.output
    wait_gone(table, {"agent-2": who}, 5.0)
    started = CliRunner().invoke(cli, ["dev", "start", "agent-2", *where])
    assert started.exit_code == 0
    assert "agent-2" in table.living()
    assert CliRunner().invoke(cli, ["dev", "kill", "agent-9", *where]).exit_code == 4
    assert CliRunner().invoke(cli, ["dev", "kill", "agent-2", "--signal", "NONE", *where]).exit_code == 2


def test_a_kind_of_fault_nobody_knows_is_a_usage_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["dev", "drill", "--kind", "flood", "--state-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "kill-leader" in result.output


def test_a_start_that_fails_shows_the_log_and_leaves_nothing(tmp_path: Path, offset: int) -> None:
    state_dir = tmp_path / "dev"
    program = (
        "import sys\n"
        "from cloudless.cli.dev.layout import Layout\n"
        "from cloudless.cli.dev.up import Starter\n"
        "Layout.argv = lambda self, name: [sys.executable, '-c', 'raise SystemExit(\"etcd says no\")']\n"
        "Starter._find_etcd = lambda self: None\n"
        "from cloudless.cli.main import cli\n"
        "cli.main(args=sys.argv[1:], prog_name='cloudless')\n"
    )
    words = ["dev", "up", "--state-dir", str(state_dir), "--port-offset", str(offset)]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 8, done.stderr
    assert "stopped while starting" in done.stderr
    assert "etcd says no" in done.stderr
    assert "hint:" in done.stderr
    assert not (state_dir / "state.json").exists()


def test_agents_and_coordinators_are_told_apart(table: Table) -> None:
    assert isinstance(table.layout.plan("agent-1"), AgentPlan)
    assert table.etcd_of("agent-1") is None
    with pytest.raises(KeyError):
        table.layout.plan("agent-9")
