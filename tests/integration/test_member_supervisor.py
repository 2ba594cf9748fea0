"""One real etcd under the supervisor: its life, its deaths, and who else may touch its directory."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.member import procfs
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.logfile import rotate, rotate_open
from cloudless.adapters.member.marker import DataState, Marker, MarkerState, judge_data
from cloudless.adapters.member.pidfile import find_orphan, identify, write_pidfile
from cloudless.adapters.member.restart import RestartPolicy, count_failures, restart_delay_s
from cloudless.adapters.member.supervisor import MemberSupervisor, Phase
from cloudless.coordinator.member_share import ETCD_NICENESS, prefer_etcd
from cloudless.errors import DataDirLocked, DataLost, EtcdRefused, MemberFailed, PortInUse
from etcd.find import Found
from etcd.flags import MemberConfig
from tests.integration.etcd_fixture import binary, build_config, datadirs, until

__all__ = ["binary", "datadirs"]

pytestmark = pytest.mark.integration

DataDirs = Callable[[str], DataDir]
FAST = RestartPolicy(first_s=0.02, max_s=0.2, stable_s=5.0)

# What a coordinator does with its member, without the coordinator: start it, say so, and wait for its own end.
COORDINATOR = """
import asyncio, json, sys
from pathlib import Path
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.supervisor import MemberSupervisor
from etcd.find import Search, find
from etcd.flags import MemberConfig

async def main(directory, settings):
    datadir = DataDir(directory)
    datadir.lock()
    settings["initial_cluster"] = tuple(map(tuple, settings["initial_cluster"]))
    supervisor = MemberSupervisor(find(Search(explicit=sys.argv[3])), MemberConfig(**settings), datadir)
    await supervisor.start()
    await supervisor.wait_ready(20)
    print(supervisor.state.pid, flush=True)
    await supervisor.run()

asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
"""


@asynccontextmanager
async def running(supervisor: MemberSupervisor) -> AsyncIterator[asyncio.Task[None]]:
    await supervisor.start()
    task = asyncio.create_task(supervisor.run())
    try:
        yield task
    finally:
        await supervisor.stop(grace_s=3)
        await asyncio.wait_for(task, 5)


def environment_of(pid: int) -> dict[str, str]:
    content = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(entry.split("=", 1) for entry in content.split("\0") if "=" in entry)


# --- life -----------------------------------------------------------------------------------------


async def test_a_member_starts_answers_and_stops_cleanly(
    binary: Found, datadirs: DataDirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_UNSAFE_NO_FSYNC", "true")
    monkeypatch.setenv("CLOUDLESS_JOIN_TOKEN", "secret")
    datadir = datadirs("n1")
    supervisor = MemberSupervisor(binary, build_config(datadir), datadir)
    async with running(supervisor) as task:
        await supervisor.wait_ready(20)
        pid = supervisor.state.pid
        assert supervisor.state.phase is Phase.RUNNING
        assert pid is not None
        # Its own session: Ctrl-C at the coordinator's terminal does not reach it.
        assert os.getsid(pid) == pid != os.getsid(0)
        names = set(environment_of(pid))
        assert "GOMEMLIMIT" in names
        assert not [name for name in names if name.startswith(("ETCD_", "CLOUDLESS_"))]
        assert datadir.path.stat().st_mode & 0o777 == 0o700
    assert task.done()
    assert supervisor.state.phase is Phase.STOPPED
    assert supervisor.state.last_exit == "killed by SIGTERM"
    assert identify(pid) is None
    assert not datadir.pidfile.exists()


async def test_a_member_goes_before_other_processes_where_it_may(binary: Found, datadirs: DataDirs) -> None:
    datadir = datadirs("n1")
    supervisor = MemberSupervisor(binary, build_config(datadir), datadir, on_started=prefer_etcd)
    allowed = may_raise_priority()
    async with running(supervisor):
        await supervisor.wait_ready(20)
        pid = supervisor.state.pid
        assert pid is not None
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
        assert len(threads) > 1
        wanted = ETCD_NICENESS if allowed else os.getpriority(os.PRIO_PROCESS, 0)
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {wanted}
        group = Path(f"/proc/{pid}/autogroup")
        if allowed and group.exists():
            assert group.read_text().endswith(f"nice {ETCD_NICENESS}\n")


def may_raise_priority() -> bool:
    """Return whether this process may let another go before others."""
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            os.setpriority(os.PRIO_PROCESS, other.pid, ETCD_NICENESS)
        except PermissionError:
            return False
        finally:
            other.kill()
    return True


async def test_a_killed_member_comes_back_with_its_data(binary: Found, datadirs: DataDirs) -> None:
    datadir = datadirs("n1")
    config = build_config(datadir)
    supervisor = MemberSupervisor(binary, config, datadir, policy=FAST)
    admin = EtcdAdmin(config.client_url)
    async with running(supervisor):
        await supervisor.wait_ready(20)
        before = await admin.status()
        pid = supervisor.state.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: supervisor.state.restarts == 1 and supervisor.state.phase is Phase.RUNNING)
        after = await admin.status()
        assert supervisor.state.pid not in (None, pid)
        assert supervisor.state.last_exit == "killed by SIGKILL"
        assert (after.member_id, after.cluster_id) == (before.member_id, before.cluster_id)


async def test_a_restart_uses_the_new_settings_and_is_no_failure(binary: Found, datadirs: DataDirs) -> None:
    datadir = datadirs("n1")
    config = build_config(datadir)
    supervisor = MemberSupervisor(binary, config, datadir)
    async with running(supervisor):
        await supervisor.wait_ready(20)
        first = supervisor.state.pid
        await supervisor.restart(replace(config, heartbeat_ms=30, election_ms=300))
        await supervisor.wait_ready(20)
        assert supervisor.state.pid not in (None, first)
        assert "--heartbeat-interval=30" in procfs.argv_of(supervisor.state.pid or 0)
        assert supervisor.state.phase is Phase.RUNNING


async def test_a_frozen_member_fails_its_probe_and_can_still_be_ended(binary: Found, datadirs: DataDirs) -> None:
    datadir = datadirs("n1")
    supervisor = MemberSupervisor(binary, build_config(datadir), datadir)
    async with running(supervisor):
        await supervisor.wait_ready(20)
        pid = supervisor.state.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        assert identify(pid) is not None, "the process exists all the same"
        async with asyncio.timeout(10):  # its threads stop one after the other
            while await supervisor.probe(0.5):
                continue
        os.kill(pid, signal.SIGCONT)
        assert await supervisor.probe(2)
        os.kill(pid, signal.SIGSTOP)
        await supervisor.stop(grace_s=0.3)
        assert supervisor.state.last_exit == "killed by SIGKILL"


# --- failures -------------------------------------------------------------------------------------


async def test_a_crash_loop_backs_off_to_its_cap_and_costs_little(binary: Found, datadirs: DataDirs) -> None:
    datadir = datadirs("n1")
    policy = RestartPolicy(first_s=0.02, max_s=0.5, stable_s=30)
    supervisor = MemberSupervisor(binary, build_config(datadir, log_level="no-such-level"), datadir, policy=policy)
    waits: list[float] = []
    async with running(supervisor):
        await until(lambda: supervisor.state.restarts >= 6, timeout_s=15)
        used_before, since = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        restarts = supervisor.state.restarts

        def three_more() -> bool:
            waits.append(supervisor.state.next_start_in_s or 0.0)
            return supervisor.state.restarts >= restarts + 3

        await until(three_more, timeout_s=15)
        used, took_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - since
        assert supervisor.state.last_exit.startswith("exit code ")
        assert 0.2 < max(waits) <= 0.5
        # At the cap a start happens at most every 0.25 s, and waiting costs nothing.
        assert took_s > 2 * 0.25
        assert used.ru_utime - used_before.ru_utime < 0.5 * took_s
        with pytest.raises(MemberFailed, match="exit code"):
            await supervisor.wait_ready(5)


async def test_a_member_that_ends_at_once_is_reported_with_its_own_words(binary: Found, datadirs: DataDirs) -> None:
    datadir = datadirs("n1")
    supervisor = MemberSupervisor(binary, build_config(datadir, log_level="no-such-level"), datadir)
    await supervisor.start()
    with pytest.raises(MemberFailed, match="no-such-level"):
        await supervisor.wait_ready(10)
    await supervisor.stop()


@pytest.mark.parametrize("which", ["client_url", "peer_listen_url"])
async def test_a_taken_port_is_named_with_its_owner(binary: Found, datadirs: DataDirs, which: str) -> None:
    datadir = datadirs("n1")
    config = build_config(datadir)
    port = int(getattr(config, which).rpartition(":")[2])
    supervisor = MemberSupervisor(binary, config, datadir)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortInUse, match=f"port {port} .* pid {os.getpid()}"):
        await supervisor.start()
    assert find_orphan(datadir.pidfile, config.data_dir) is None


async def test_a_port_taken_while_the_member_was_down_is_waited_for(binary: Found, datadirs: DataDirs) -> None:
    datadir = datadirs("n1")
    config = build_config(datadir)
    port = int(config.client_url.rpartition(":")[2])
    supervisor = MemberSupervisor(binary, config, datadir, policy=RestartPolicy(first_s=0.5, max_s=0.5))
    async with running(supervisor):
        await supervisor.wait_ready(20)
        os.kill(supervisor.state.pid or 0, signal.SIGSTOP)
        os.kill(supervisor.state.pid or 0, signal.SIGKILL)
        await until(lambda: supervisor.state.phase is Phase.BACKOFF)
        with socket.create_server(("127.0.0.1", port)):
            await until(lambda: f"port {port}" in supervisor.state.last_exit)
        await until(lambda: supervisor.state.phase is Phase.RUNNING)


async def test_data_of_a_newer_etcd_is_refused_before_anything_is_started(binary: Found, datadirs: DataDirs) -> None:
    datadir = datadirs("n1")
    Marker(MarkerState.BOOTSTRAPPED, last_etcd_version="3.99.0").write(datadir.marker)
    with pytest.raises(EtcdRefused, match="older than"):
        await MemberSupervisor(binary, build_config(datadir), datadir).start()


async def test_the_version_is_noted_before_it_can_write(binary: Found, datadirs: DataDirs) -> None:
    datadir = datadirs("n1")
    Marker(MarkerState.FORMING, node_id="c1").write(datadir.marker)
    supervisor = MemberSupervisor(binary, build_config(datadir), datadir)
    async with running(supervisor):
        marker = Marker.read(datadir.marker)
        assert marker == Marker(MarkerState.FORMING, node_id="c1", last_etcd_version=str(binary.version))


# --- a coordinator that was killed ------------------------------------------------------------------


@asynccontextmanager
async def killed_coordinator(binary: Found, datadir: DataDir, config: MemberConfig) -> AsyncIterator[int]:
    """Run a coordinator process until its member answers, kill -9 it, and yield the pid of the etcd it left."""
    arguments = [str(datadir.path), json.dumps(asdict(config)), str(binary.path)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COORDINATOR, *arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    try:
        pid = int(await asyncio.wait_for(process.stdout.readline(), 30))
    finally:
        process.kill()
        await process.wait()
    assert identify(pid) is not None, "etcd outlives its coordinator"
    yield pid


@pytest.mark.parametrize("pidfile_written", [True, False], ids=["with-pidfile", "without-pidfile"])
async def test_the_etcd_of_a_killed_coordinator_is_adopted(
    binary: Found, datadirs: DataDirs, pidfile_written: bool
) -> None:
    datadir = datadirs("n1")
    config = build_config(datadir)
    async with killed_coordinator(binary, datadir, config) as orphan:
        if not pidfile_written:
            datadir.pidfile.unlink()
        datadir.lock()  # the orphan does not hold it
        # Bootstrap settings no longer matter, and a coordinator that joins its own cluster again gives others.
        config = replace(config, initial_cluster_state="existing")
        supervisor = MemberSupervisor(binary, config, datadir, policy=FAST)
        async with running(supervisor):
            await supervisor.wait_ready(10)
            assert (supervisor.state.pid, supervisor.state.adopted) == (orphan, True)
            # Supervised like a child: its end is seen and it is started again.
            os.kill(orphan, signal.SIGKILL)
            await until(lambda: supervisor.state.phase is Phase.RUNNING and supervisor.state.pid != orphan)
            assert not supervisor.state.adopted
        datadir.unlock()


async def test_an_orphan_with_other_settings_is_ended_and_replaced(binary: Found, datadirs: DataDirs) -> None:
    datadir = datadirs("n1")
    config = build_config(datadir)
    async with killed_coordinator(binary, datadir, config) as orphan:
        supervisor = MemberSupervisor(binary, replace(config, heartbeat_ms=30, election_ms=300), datadir)
        async with running(supervisor):
            await supervisor.wait_ready(20)
            assert identify(orphan) is None
            assert supervisor.state.pid != orphan


async def test_a_stale_pidfile_never_costs_an_innocent_process_its_life(binary: Found, datadirs: DataDirs) -> None:
    datadir = datadirs("n1")
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        identity = identify(innocent.pid, ["sleep", "60"])
        assert identity is not None
        write_pidfile(datadir.pidfile, replace(identity, start_ticks=identity.start_ticks - 1))
        supervisor = MemberSupervisor(binary, build_config(datadir), datadir)
        async with running(supervisor):
            await supervisor.wait_ready(20)
            assert not supervisor.state.adopted
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


# --- the directory ----------------------------------------------------------------------------------


def test_a_second_owner_of_a_directory_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    first = DataDir(tmp_path / "n1")
    first.lock()
    with pytest.raises(DataDirLocked, match=f"pid {os.getpid()}") as caught:
        DataDir(tmp_path / "n1").lock()
    assert "CLOUDLESS_DATA_DIR" in caught.value.hint
    first.unlock()
    second = DataDir(tmp_path / "n1")
    second.lock()
    second.unlock()


#     marker                     log    state
@pytest.mark.parametrize(
    ("marker", "has_wal", "state"),
    [
        (MarkerState.ABSENT, False, DataState.FRESH),
        (MarkerState.ABSENT, True, DataState.FOREIGN),
        (MarkerState.FORMING, False, DataState.FORMING),
        (MarkerState.FORMING, True, DataState.FORMING),
        (MarkerState.BOOTSTRAPPED, True, DataState.PRESENT),
        (MarkerState.BOOTSTRAPPED, False, DataState.LOST),
    ],
)
def test_marker_and_log_together_tell_new_from_lost(
    tmp_path: Path, marker: MarkerState, has_wal: bool, state: DataState
) -> None:
    datadir = DataDir(tmp_path / "n1")
    if marker is not MarkerState.ABSENT:
        Marker(marker, node_id="c1", initial_cluster=(("c1", "http://h:1"),)).write(datadir.marker)
        assert Marker.read(datadir.marker).initial_cluster == (("c1", "http://h:1"),)
    if has_wal:
        wal = datadir.etcd_dir / "member" / "wal"
        wal.mkdir(parents=True)
        (wal / "0000000000000000-0000000000000000.wal").touch()
    assert judge_data(datadir) is state


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}', '{"format": 1, "state": "perhaps"}'])
def test_a_damaged_marker_is_refused_rather_than_taken_for_none(tmp_path: Path, content: str) -> None:
    datadir = DataDir(tmp_path / "n1")
    datadir.marker.write_text(content)
    with pytest.raises(DataLost, match="cannot be understood"):
        judge_data(datadir)


def test_a_log_that_has_grown_too_long_is_moved_away(tmp_path: Path) -> None:
    log = tmp_path / "etcd.log"
    log.write_text("x" * 100)
    rotate(log, above_bytes=100)
    assert log.exists()
    rotate(log, above_bytes=99)
    assert not log.exists()
    with log.open("ab") as writer:
        writer.write(b"y" * 100)
        writer.flush()
        rotate_open(log, above_bytes=99)
        writer.write(b"z")
    assert (log.read_bytes(), (tmp_path / "etcd.log.1").read_bytes()) == (b"z", b"y" * 100)


def test_the_wait_between_starts_doubles_to_its_cap_and_starts_afresh_after_a_stable_run() -> None:
    policy = RestartPolicy()
    assert [restart_delay_s(policy, failures, chance=1.0) for failures in (1, 2, 3, 8, 5000)] == [0.1, 0.2, 0.4, 10, 10]
    assert restart_delay_s(policy, 8, chance=0.0) == 5.0
    assert count_failures(policy, 7, ran_s=1) == 8
    assert count_failures(policy, 7, ran_s=30) == 1
