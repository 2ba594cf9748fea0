"""What every executor promises: on processes, on containers where an engine can run, and on the fake.

Then what only real processes can show; what only containers can is in `tests/integration/test_docker_executor.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from cloudless.adapters.docker import DockerExecutor, Engine
from cloudless.adapters.subprocess import ProcessExecutor, procfs
from cloudless.core.model import Instance, Limits, TaskSpec
from cloudless.errors import NotFound, Permanent, Temporary
from cloudless.ports import LogChunk, LogQuery, StartRequest
from cloudless.testing.fake_executor import FakeExecutor, FakeMachine
from tests.docker_engine import IMAGE, DockerDaemon

DEADLINE_S = 10.0
LOG_BYTES_MAX = 200_000


@dataclass
class Harness:
    """An executor, the commands it understands, and a way to begin another agent life on the same machine."""

    make: Callable[[], Any]
    commands: dict[str, tuple[str, ...]]
    beside: dict[str, tuple[str, ...]]
    executor: Any = None
    made: list[Any] = field(default_factory=list)
    image: str = ""
    ready: frozenset[str] = frozenset()
    """Commands that print a word once they can be signalled."""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.executor = self.make()
        self.made.append(self.executor)

    async def start(
        self, command: str, *, task_id: str = "t1", attempt: int = 1, limits: Limits | None = None, **request: Any
    ) -> Instance:
        words = self.commands.get(command, (command,))
        spec = TaskSpec(command=words, stop_grace_s=0.3, image=self.image, limits=limits or Limits())
        instance: Instance = await self.executor.start(
            StartRequest(task_id=task_id, attempt=attempt, spec=spec, **request)
        )
        if command in self.ready:
            await self._until_ready(task_id)
        return instance

    async def _until_ready(self, task_id: str) -> None:
        async with (
            asyncio.timeout(DEADLINE_S),
            aclosing(self.executor.read_logs(task_id, LogQuery(follow=True))) as chunks,
        ):
            async for chunk in chunks:
                if b"ready" in chunk.data:
                    return

    async def wait(self, attempt: int = 1, task_id: str = "t1") -> Instance:
        async with asyncio.timeout(DEADLINE_S):
            instance: Instance = await self.executor.wait(task_id, attempt)
            return instance

    async def read(self, tail_lines: int = -1, follow: bool = False) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            chunks: list[LogChunk] = [
                chunk async for chunk in self.executor.read_logs("t1", LogQuery(tail_lines=tail_lines, follow=follow))
            ]
        return b"".join(chunk.data for chunk in chunks)


REAL = {
    "run": ("sleep", "600"),
    "stubborn": ("sh", "-c", 'trap "" TERM; echo ready; while :; do sleep 600; done'),
    "exit 0": ("true",),
    "exit 3": ("sh", "-c", "exit 3"),
    "print": ("sh", "-c", "for i in 0 1 2 3 4 5 6 7 8 9; do echo line $i; done"),
    "eat": ("tail", "/dev/zero"),
}
# The first process of a container has to listen to a signal itself: the kernel spares it the usual effect.
DOCKER = {
    "run": ("sh", "-c", "trap 'exit 143' TERM; echo ready; sleep 600 & wait"),
    "stubborn": ("sh", "-c", 'trap "" TERM; echo ready; while :; do sleep 600; done'),
    "exit 0": ("true",),
    "exit 3": ("sh", "-c", "exit 3"),
    "print": ("sh", "-c", "for i in 0 1 2 3 4 5 6 7 8 9; do echo line $i; done"),
    "eat": ("tail", "/dev/zero"),
}
FAKE = {
    "run": ("run",),
    "stubborn": ("stubborn",),
    "exit 0": ("exit", "0"),
    "exit 3": ("exit", "3"),
    "print": ("print", "line", "10"),
    "eat": ("eat", "64"),
}


BESIDE = {
    "exit 3": ("sh", "-c", "exit 3"),
    "say": ("sh", "-c", "echo hello; echo hello >&2"),
    "variable CLOUDLESS_TASK_ID": ("sh", "-c", "echo $CLOUDLESS_TASK_ID"),
    "variable OWN": ("sh", "-c", "echo $OWN"),
    "echo": ("cat",),
    "hang": ("sh", "-c", "trap '' TERM; sleep 600"),
}
FAKE_BESIDE = {
    "exit 3": ("exit", "3"),
    "say": ("say", "hello"),
    "variable CLOUDLESS_TASK_ID": ("variable", "CLOUDLESS_TASK_ID"),
    "variable OWN": ("variable", "OWN"),
    "echo": ("echo",),
    "hang": ("hang",),
}


async def end_all(root: Path) -> None:
    """End, by pid and start time, every shim that is left under `root`."""
    executor = ProcessExecutor(root)
    try:
        for instance in await executor.adopt():
            if instance.running:
                await executor.stop(instance.task_id, instance.attempt, grace_s=0)
                await executor.wait(instance.task_id, instance.attempt)
    finally:
        executor.close()


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Harness]:
    root = tmp_path / "tasks"
    harness = Harness(lambda: ProcessExecutor(root, log_bytes_max=LOG_BYTES_MAX), REAL, BESIDE)
    yield harness
    await end_all(root)
    for executor in harness.made:
        executor.close()


@pytest.fixture
def fake() -> Harness:
    machine = FakeMachine()
    return Harness(lambda: FakeExecutor(machine), FAKE, FAKE_BESIDE)


@pytest.fixture
async def docker(docker_daemon: DockerDaemon) -> AsyncIterator[Harness]:
    running: list[asyncio.Task[None]] = []

    def make() -> DockerExecutor:
        executor = DockerExecutor(Engine(docker_daemon.host), "agent-1")
        running.append(asyncio.create_task(executor.run()))
        return executor

    yield Harness(make, DOCKER, BESIDE, image=IMAGE, ready=frozenset({"run", "stubborn"}))
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture(params=["real", "fake", pytest.param("docker", marks=pytest.mark.docker)])
def harness(request: pytest.FixtureRequest) -> Harness:
    found: Harness = request.getfixturevalue(request.param)
    return found


# --- every executor -----------------------------------------------------------------------------


async def test_a_started_attempt_runs_and_can_be_stopped(harness: Harness) -> None:
    instance = await harness.start("run")
    assert instance.running
    assert instance.pid > 0
    assert instance.started_at_ms > 0
    await harness.executor.stop("t1", 1, grace_s=5)
    ended = await harness.wait()
    assert (ended.running, ended.exit_code, ended.signal) == (False, -1, signal.SIGTERM)
    assert ended.finished_at_ms >= ended.started_at_ms


async def test_starting_twice_starts_once(harness: Harness) -> None:
    first, second = await asyncio.gather(harness.start("run"), harness.start("run"))
    third = await harness.start("run")
    assert first.pid == second.pid == third.pid


async def test_an_ended_attempt_is_not_started_again(harness: Harness) -> None:
    await harness.start("exit 3")
    await harness.wait()
    again = await harness.start("exit 3")
    assert (again.running, again.exit_code) == (False, 3)


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 3", 3)])
async def test_the_exit_code_is_kept(harness: Harness, command: str, code: int) -> None:
    await harness.start(command)
    assert (await harness.wait()).exit_code == code
    assert (await harness.wait()).exit_code == code


async def test_a_running_attempt_is_adopted_by_the_next_life(harness: Harness) -> None:
    started = await harness.start("run", ports={"http": 1234})
    harness.restart()
    (adopted,) = await harness.executor.adopt()
    assert (adopted.task_id, adopted.attempt, adopted.running) == ("t1", 1, True)
    assert (adopted.pid, adopted.ports) == (started.pid, {"http": 1234})
    await harness.executor.stop("t1", 1, grace_s=5)
    assert (await harness.wait()).signal == signal.SIGTERM


async def test_an_end_in_between_two_lives_keeps_its_exit_code(harness: Harness) -> None:
    await harness.start("exit 3")
    await harness.wait()
    harness.restart()
    (adopted,) = await harness.executor.adopt()
    assert (adopted.running, adopted.exit_code) == (False, 3)


async def test_who_ignores_the_polite_signal_is_killed_after_the_grace(harness: Harness) -> None:
    await harness.start("stubborn")
    if harness.commands is REAL:
        await until(lambda: "ready" in read_file(harness, "stdout.log"))
    began = time.monotonic()
    await harness.executor.stop("t1", 1, grace_s=0.3)
    assert time.monotonic() - began < 0.3, "stop returns at once"
    assert (await harness.wait()).signal == signal.SIGKILL


async def test_a_missing_command_is_permanent_and_named(harness: Harness) -> None:
    with pytest.raises(Permanent, match="no-such-command"):
        await harness.start("no-such-command")
    assert await harness.executor.adopt() == ()


async def test_an_unknown_attempt_cannot_be_waited_for_and_stopping_it_is_harmless(harness: Harness) -> None:
    await harness.executor.stop("t1", 1, grace_s=0)
    with pytest.raises(NotFound):
        await harness.executor.wait("t1", 1)
    with pytest.raises(NotFound):
        await harness.read()


async def test_a_removed_task_is_forgotten_and_a_living_one_is_not_removed(harness: Harness) -> None:
    await harness.start("run")
    with pytest.raises(Temporary):
        await harness.executor.remove("t1")
    await harness.executor.stop("t1", 1, grace_s=1)
    await harness.wait()
    await harness.executor.remove("t1")
    await harness.executor.remove("t1")
    assert await harness.executor.adopt() == ()


async def test_output_can_be_read_whole_by_its_last_lines_and_followed_to_the_end(harness: Harness) -> None:
    await harness.start("print")
    await harness.wait()
    assert (await harness.read()).split(b"\n")[:2] == [b"line 0", b"line 1"]
    assert await harness.read(tail_lines=2) == b"line 8\nline 9\n"
    assert await harness.read(tail_lines=0) == b""
    assert await harness.read(tail_lines=100) == await harness.read(follow=True)


async def test_a_task_out_of_memory_says_so_with_its_limit(harness: Harness) -> None:
    if why_not := getattr(harness.executor, "abilities", {}).get("limit-memory"):
        pytest.skip(why_not)
    await harness.start("eat", limits=Limits(memory_mb=16))
    ended = await harness.wait()
    assert (ended.exit_code, ended.signal) == (-1, signal.SIGKILL)
    assert ended.message == "killed: out of memory (limit 16 MB)"


async def read_parts(harness: Harness, **query: Any) -> list[LogChunk]:
    async with asyncio.timeout(DEADLINE_S):
        return [chunk async for chunk in harness.executor.read_logs("t1", LogQuery(**query))]


async def test_output_says_when_it_was_written_and_by_which_attempt(harness: Harness) -> None:
    before_ms = time.time_ns() // 1_000_000
    await harness.start("print")
    await harness.wait()
    parts = await read_parts(harness, timestamps=True)
    assert b"".join(part.data for part in parts) == await harness.read()
    assert {part.attempt for part in parts} == {1}
    assert all(before_ms - 1 <= part.at_ms <= time.time_ns() // 1_000_000 + 1 for part in parts)
    assert {part.at_ms for part in await read_parts(harness)} == {0}, "not asked for"


async def test_output_can_be_read_from_a_moment_on(harness: Harness) -> None:
    await harness.start("print")
    await harness.wait()
    # Output is timed to a tenth of a second.
    now_ms = time.time_ns() // 1_000_000 + 200
    assert await read_parts(harness, since_ms=now_ms) == []
    assert b"".join(p.data for p in await read_parts(harness, since_ms=now_ms - 60_000)) == await harness.read()
    last = await read_parts(harness, since_ms=now_ms - 60_000, tail_lines=1)
    assert b"".join(part.data for part in last) == b"line 9\n"


async def test_what_a_task_uses_is_told_while_it_runs(harness: Harness) -> None:
    await harness.start("run")
    before = (await harness.executor.measure(["t1", "t9"]))["t1"]
    assert before.cpu_s >= 0
    assert before.memory_bytes > 10_000
    assert (await harness.executor.measure(["t1"]))["t1"].cpu_s >= before.cpu_s
    await harness.executor.stop("t1", 1, grace_s=1)
    await harness.wait()
    assert await harness.executor.measure(["t1"]) == {}


# --- real processes -----------------------------------------------------------------------------


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def root_of(harness: Harness) -> Path:
    root: Path = harness.executor._root
    return root


def read_file(harness: Harness, name: str, attempt: int = 1) -> str:
    path = root_of(harness) / "t1" / str(attempt) / name
    return path.read_text() if path.exists() else ""


def state_of(harness: Harness) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(read_file(harness, "state.json"))
    return document


async def start_shell(harness: Harness, script: str) -> Instance:
    spec = TaskSpec(command=("sh", "-c", script), stop_grace_s=0.5)
    instance: Instance = await harness.executor.start(StartRequest(task_id="t1", attempt=1, spec=spec))
    return instance


async def test_grandchildren_that_left_the_group_are_gone_after_the_grace(real: Harness) -> None:
    await start_shell(
        real,
        """trap "" TERM
        (trap "" TERM; sleep 600) &
        setsid sh -c 'trap "" TERM; sleep 600 & echo $! >> pids; echo $$ >> pids; wait' &
        setsid setsid sleep 600 &
        echo $! >> pids; echo ready; wait; wait; wait""",
    )
    pids_file = root_of(real) / "t1" / "home" / "pids"
    await until(lambda: pids_file.exists() and len(pids_file.read_text().split()) >= 3)
    shim = psutil.Process(state_of(real)["shim_pid"])
    family = shim.children(recursive=True)
    assert len(family) >= 5
    await real.executor.stop("t1", 1, grace_s=0.3)
    assert (await real.wait()).signal == signal.SIGKILL
    assert [process for process in family if process.is_running()] == []


async def test_what_a_command_leaves_behind_is_ended_with_it_and_its_exit_code_is_kept(real: Harness) -> None:
    await start_shell(real, "setsid sleep 600 & echo $! > left; exit 4")
    assert (await real.wait()).exit_code == 4
    assert not psutil.pid_exists(int((root_of(real) / "t1/home/left").read_text()))


async def test_a_killed_supervisor_takes_the_task_with_it_and_says_so(real: Harness) -> None:
    await start_shell(real, "setsid sleep 600 & echo $! > left; sleep 600")
    left = root_of(real) / "t1/home/left"
    await until(lambda: left.exists() and left.read_text().strip())
    state = state_of(real)
    os.kill(state["shim_pid"], signal.SIGKILL)
    ended = await real.wait()
    assert (ended.exit_code, ended.signal) == (-1, signal.SIGKILL)
    assert "supervising process was killed" in ended.message
    await until(lambda: not psutil.pid_exists(state["pid"]))
    await until(lambda: not is_alive(int(left.read_text())))
    assert await real.wait() == ended


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("fact", ["shim_start_ticks", "boot_id"])
async def test_a_stranger_with_the_same_pid_is_neither_adopted_nor_signalled(real: Harness, fact: str) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        await start_shell(real, "exit 0")
        await real.wait()
        directory = root_of(real) / "t1" / "1"
        (directory / "exit.json").unlink()
        state = state_of(real)
        state["shim_pid"] = stranger.pid
        state["shim_start_ticks"] = procfs.start_ticks(stranger.pid)
        state[fact] = {"shim_start_ticks": 1, "boot_id": "another boot"}[fact]
        (directory / "state.json").write_text(json.dumps(state))
        real.restart()
        (adopted,) = await real.executor.adopt()
        assert not adopted.running
        assert ("reboot" in adopted.message) == (fact == "boot_id")
        await real.executor.stop("t1", 1, grace_s=0)
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_crash_between_directory_and_spawn_is_resolved_on_adoption(real: Harness) -> None:
    attempt = root_of(real) / "t1" / "1"
    attempt.mkdir(parents=True)
    assert await real.executor.adopt() == ()
    assert not attempt.exists()
    attempt.mkdir()
    (attempt / "lock").touch()
    assert (await real.start("run")).running


async def test_a_task_gets_a_clean_environment_its_ports_and_a_directory_of_its_own(
    real: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDLESS_JOIN_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET", "secret")
    await real.executor.start(
        StartRequest(
            task_id="t1",
            attempt=1,
            spec=TaskSpec(
                command=("sh", "-c", "env; pwd; echo port $(CLOUDLESS_PORT_WEB_UI)"),
                env={"OWN": "at $(CLOUDLESS_PORT_WEB_UI)", "CLOUDLESS_NODE_ID": "forged"},
            ),
            env={"CLOUDLESS_NODE_ID": "n1"},
            ports={"web-ui": 4711},
        )
    )
    await real.wait()
    lines = (await real.read()).decode().split("\n")
    work = root_of(real) / "t1" / "home"
    assert {"OWN=at 4711", "CLOUDLESS_NODE_ID=n1", "CLOUDLESS_TASK_ID=t1", "CLOUDLESS_PORT_WEB_UI=4711"} <= {*lines}
    assert {f"HOME={work}", f"TMPDIR={work.parent / 'tmp'}", str(work), "port 4711"} <= {*lines}
    assert not [line for line in lines if "secret" in line]
    assert stat.S_IMODE((root_of(real) / "t1").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("./nowhere",), "command not found: ./nowhere"),
        (("/etc/passwd",), "not executable: /etc/passwd"),
        (("/tmp",), "not executable: /tmp"),
        ((), "no command"),
        (("echo", "$(CLOUDLESS_PORT_NONE)"), "names no port"),
        (("\0",), "cannot be a command"),
    ],
)
async def test_what_can_never_start_says_why(real: Harness, command: tuple[str, ...], words: str) -> None:
    with pytest.raises(Permanent, match=words.replace("$", ".")):
        await real.executor.start(StartRequest(task_id="t1", attempt=1, spec=TaskSpec(command=command)))


async def test_a_missing_interpreter_is_told_by_the_kernel_and_named(real: Harness, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(Permanent, match="interpreter"):
        await real.executor.start(StartRequest(task_id="t1", attempt=1, spec=TaskSpec(command=(str(script),))))
    assert await real.executor.adopt() == ()


@pytest.mark.parametrize("task_id", ["", "..", ".hidden", "a/b", "x" * 200])
async def test_a_task_id_cannot_point_elsewhere(real: Harness, task_id: str) -> None:
    with pytest.raises(Permanent):
        await real.executor.start(StartRequest(task_id=task_id, attempt=1, spec=TaskSpec(command=("true",))))


async def test_output_is_rotated_and_its_tail_is_read_across_both_files(real: Harness) -> None:
    await start_shell(real, "seq 1 60000")
    await real.wait()
    directory = root_of(real) / "t1" / "1"
    sizes = [(directory / name).stat().st_size for name in ("stdout.log", "stdout.log.1")]
    assert all(0 < size <= LOG_BYTES_MAX + 65_536 for size in sizes)
    lines = (await real.read(tail_lines=3000)).split()
    kept = (await real.read()).split()
    assert lines == kept[-len(lines) :]
    assert lines[-1] == b"60000"
    assert [int(line) for line in lines[1:]] == list(range(int(lines[1]), 60001))


async def test_a_flood_of_output_holds_nobody_up_and_fills_nothing(real: Harness) -> None:
    await start_shell(real, "yes")
    other = await real.start("exit 3", task_id="t2")
    assert other.attempt == 1
    assert (await real.wait(task_id="t2")).exit_code == 3
    longest = 0.0
    async with asyncio.timeout(DEADLINE_S):
        count = 0
        before = time.monotonic()
        async for chunk in real.executor.read_logs("t1", LogQuery(tail_lines=10, follow=True)):
            assert len(chunk.data) <= 64 * 1024
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
            count += 1
            if count == 5:
                break
    assert longest < DEADLINE_S / 2
    await real.executor.stop("t1", 1, grace_s=1)
    await real.wait()
    size = sum(path.stat().st_size for path in (root_of(real) / "t1" / "1").iterdir())
    assert size < 4 * (LOG_BYTES_MAX + 65_536)


async def test_following_goes_on_until_the_task_ends(real: Harness) -> None:
    await start_shell(real, "echo first; while [ ! -e go ]; do sleep 0.01; done; echo second >&2")
    seen: list[LogChunk] = []
    async with asyncio.timeout(DEADLINE_S):
        async for chunk in real.executor.read_logs("t1", LogQuery(follow=True)):
            seen.append(chunk)
            (root_of(real) / "t1" / "home" / "go").touch()
    assert seen == [LogChunk("stdout", b"first\n", 1), LogChunk("stderr", b"second\n", 1)]


async def test_lines_written_apart_have_times_apart_over_a_rotation_too(real: Harness) -> None:
    script = "echo early; sleep 0.4; seq 1 45000; sleep 0.4; echo late"
    await start_shell(real, script)
    await real.wait()
    assert (root_of(real) / "t1/1/stdout.log.1.times").exists()
    parts = await read_parts(real, timestamps=True)
    times = [part.at_ms for part in parts]
    assert times == sorted(times)
    assert parts[-1].data == b"late\n"
    assert 300 <= parts[-1].at_ms - parts[-2].at_ms <= 5_000
    (late,) = await read_parts(real, since_ms=parts[-1].at_ms)
    assert late.data == b"late\n"
    both = b"".join(part.data for part in await read_parts(real, since_ms=parts[-2].at_ms - 200))
    assert both.endswith(b"45000\nlate\n")
    notes = (root_of(real) / "t1/1/stdout.log.times").stat().st_size
    assert 0 < notes <= 16 * 10 * 10, "ten a second at most"


async def test_only_the_newest_attempts_are_kept(real: Harness) -> None:
    for attempt in range(1, 5):
        await real.start("exit 3", attempt=attempt)
        await real.wait(attempt)
    assert [instance.attempt for instance in await real.executor.adopt()] == [3, 4]


async def test_a_directory_that_cannot_be_written_is_a_temporary_fault(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    executor = ProcessExecutor(blocked / "tasks")
    with pytest.raises(Temporary, match="cannot start in"):
        await executor.start(StartRequest(task_id="t1", attempt=1, spec=TaskSpec(command=("true",))))
    executor.close()


async def test_a_shim_is_small_and_idle(real: Harness) -> None:
    await real.start("run")
    shim = psutil.Process(state_of(real)["shim_pid"])
    memory = shim.memory_full_info()
    # A bare interpreter has 8.4 MB resident, 2.6 MB of them its own; the rest is shared by all shims.
    assert memory.rss < 11 * 1024**2
    assert memory.uss < 4.5 * 1024**2


async def test_an_end_is_told_though_the_disk_takes_no_exit_code(real: Harness) -> None:
    await start_shell(real, "while [ ! -e go ]; do sleep 0.01; done; exit 7")
    home, directory = root_of(real) / "t1" / "home", root_of(real) / "t1" / "1"
    (directory / "exit.json").mkdir()  # a file cannot be renamed to it
    (home / "go").touch()
    ended = await real.wait()
    assert (ended.running, ended.exit_code, ended.signal) == (False, 7, 0)
    real.restart()
    (adopted,) = await real.executor.adopt()
    assert (adopted.running, adopted.exit_code) == (False, 7), "the next life of the agent is told the same"
    (directory / "exit.json").rmdir()
    await until(lambda: (directory / "exit.json").is_file())
    assert (await real.wait()).exit_code == 7
