"""What every executor promises of commands beside a task, and what only real processes and terminals can show."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import psutil
import pytest

from cloudless.adapters.subprocess import launcher, launches
from cloudless.core.model import TaskSpec
from cloudless.errors import NotFound, Temporary
from cloudless.ports import ExecRequest, StartRequest, TerminalSize
from tests.contracts.test_executor import DEADLINE_S, Harness, docker, fake, harness, real, root_of, until

__all__ = ["docker", "fake", "harness", "real"]


# --- every executor -----------------------------------------------------------------------------


async def run_beside(
    harness: Harness, name: str, *, given: bytes | None = None, attempt: int = 1, terminal: TerminalSize | None = None
) -> tuple[int, bytes, bytes]:
    """Run a command to its end; return its exit code and what it wrote to both streams."""
    command = harness.beside.get(name) or tuple(name.split(" ", 2))
    request = StartRequest(
        task_id="t1", attempt=attempt, spec=TaskSpec(command=("x",)), env={"OWN": "mine"}, ports={"web": 4711}
    )
    said = {"stdout": b"", "stderr": b""}
    async with (
        asyncio.timeout(DEADLINE_S),
        harness.executor.exec(
            ExecRequest(attempt=request, command=command, stdin=given is not None, terminal=terminal)
        ) as execution,
    ):
        if given is not None:
            await execution.write(given)
            await execution.write(b"")
        async for chunk in execution.output():
            said[chunk.stream] += chunk.data
        return await execution.wait(), said["stdout"], said["stderr"]


async def test_a_command_beside_a_task_gives_its_exit_code_and_both_streams(harness: Harness) -> None:
    await harness.start("run")
    assert await run_beside(harness, "exit 3") == (3, b"", b"")
    assert await run_beside(harness, "say") == (0, b"hello\n", b"hello\n")
    assert (await harness.executor.adopt())[0].running, "the task is left alone"


async def test_a_command_beside_a_task_sees_what_the_task_sees(harness: Harness) -> None:
    await harness.start("run", env={"OWN": "mine"}, ports={"web": 4711})
    assert await run_beside(harness, "variable CLOUDLESS_TASK_ID") == (0, b"t1\n", b"")
    assert await run_beside(harness, "variable OWN") == (0, b"mine\n", b"")


async def test_a_command_beside_a_task_reads_what_it_is_given_to_its_end(harness: Harness) -> None:
    await harness.start("run")
    assert await run_beside(harness, "echo", given=b"one\ntwo\n") == (0, b"one\ntwo\n", b"")
    assert await run_beside(harness, "echo") == (0, b"", b""), "without input it reads nothing"


async def test_a_command_that_cannot_be_run_says_so(harness: Harness) -> None:
    await harness.start("run")
    code, out, err = await run_beside(harness, "no-such-command")
    assert code in (126, 127)
    assert b"no-such-command" in out + err


async def test_nothing_runs_beside_an_attempt_that_does_not_run(harness: Harness) -> None:
    with pytest.raises(NotFound):
        await run_beside(harness, "exit 3")
    await harness.start("exit 3")
    await harness.wait()
    with pytest.raises(NotFound):
        await run_beside(harness, "exit 3")


async def test_a_command_that_hangs_is_ended_when_it_is_left(harness: Harness) -> None:
    await harness.start("run")
    began = time.monotonic()
    request = StartRequest(task_id="t1", attempt=1, spec=TaskSpec(command=("x",)))

    async def run() -> None:
        request_beside = ExecRequest(attempt=request, command=harness.beside["hang"])
        async with harness.executor.exec(request_beside) as execution, asyncio.timeout(0.3):
            async for _ in execution.output():
                pass

    with pytest.raises(TimeoutError):
        await run()
    assert time.monotonic() - began < 5
    assert (await harness.executor.adopt())[0].running


async def test_many_commands_run_beside_a_task_at_once(harness: Harness) -> None:
    await harness.start("run")
    async with asyncio.timeout(DEADLINE_S):
        answers = await asyncio.gather(*(run_beside(harness, "say") for _ in range(20)))
    assert set(answers) == {(0, b"hello\n", b"hello\n")}


# --- real processes -----------------------------------------------------------------------------


def find_beside() -> list[psutil.Process]:
    """Return what runs under the launchers of this process."""
    own = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
    launchers = [process for process in own if "launcher.py" in " ".join(process.cmdline())]
    return [child for launcher in launchers for child in launcher.children(recursive=True)]


async def test_a_command_beside_a_process_has_its_directory_its_ports_and_its_limits(real: Harness) -> None:
    request = StartRequest(task_id="t1", attempt=1, spec=TaskSpec(command=("sh", "-c", "ulimit -n 77; exec sleep 600")))
    instance = await real.executor.start(request)
    await until(lambda: psutil.Process(instance.pid).name() == "sleep")
    _, out, _ = await run_beside(real, "sh -c pwd; echo $(CLOUDLESS_PORT_WEB); ulimit -n; umask; cat /proc/self/cgroup")
    lines = out.decode().splitlines()
    assert lines[:4] == [str(root_of(real) / "t1" / "home"), "4711", "77", "0022"]
    assert lines[4:] == Path(f"/proc/{instance.pid}/cgroup").read_text().splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run a task as somebody else")
async def test_a_command_beside_a_process_is_run_by_the_same_user_in_the_same_mounts(real: Harness) -> None:
    script = (
        "mount -t tmpfs own /mnt && touch /mnt/own-$$ && exec setpriv --reuid 65534 --regid 65534 --clear-groups "
        "--inh-caps +net_bind_service --ambient-caps +net_bind_service --no-new-privs --bounding-set -net_raw sleep 600"
    )
    spec = TaskSpec(command=("unshare", "--mount", "sh", "-c", script))
    instance = await real.executor.start(StartRequest(task_id="t1", attempt=1, spec=spec))
    await until(lambda: psutil.Process(instance.pid).name() == "sleep")
    facts = ("NoNewPrivs", "CapBnd", "CapEff", "CapPrm", "CapAmb", "Groups")
    look = f"sh -c id -u; ls /mnt; grep -E '^({'|'.join(facts)})' /proc/self/status"
    code, out, err = await run_beside(real, look)
    assert (code, err) == (0, b"")
    user, own, *status = out.decode().splitlines()
    assert (user, own) == ("65534", f"own-{instance.pid}")
    lines = Path(f"/proc/{instance.pid}/status").read_text().splitlines()
    assert status == [line for line in lines if line.startswith(facts)]
    assert [line.split()[1] for line in status if line.startswith("CapAmb")] == [f"{1 << 10:016x}"]


async def test_what_a_command_beside_a_task_leaves_behind_is_ended_with_it(real: Harness) -> None:
    await real.start("run")
    script = "setsid sleep 601 & (setsid env -i sleep 602 &) ; trap '' TERM HUP; echo begun"
    assert (await run_beside(real, f"sh -c {script}"))[:2] == (0, b"begun\n")
    assert find_beside() == []


async def test_the_whole_family_of_a_command_that_hangs_is_ended_when_it_is_left(real: Harness) -> None:
    await real.start("run")
    script = "trap '' TERM; setsid sh -c 'sleep 600 & sleep 600' & (setsid sleep 600 &); echo begun; wait; sleep 600"
    request = StartRequest(task_id="t1", attempt=1, spec=TaskSpec(command=("x",)))
    async with real.executor.exec(ExecRequest(attempt=request, command=("sh", "-c", script))) as execution:
        async for chunk in execution.output():
            assert chunk.data == b"begun\n"
            break
        await until(lambda: len(find_beside()) >= 5)
    assert find_beside() == []


async def test_a_launcher_that_is_killed_takes_commands_with_it_and_is_replaced(real: Harness) -> None:
    await real.start("run")
    request = StartRequest(task_id="t1", attempt=1, spec=TaskSpec(command=("x",)))
    left: list[psutil.Process] = []

    async def run() -> None:
        command = ("sh", "-c", "setsid sleep 600 & echo $!; sleep 600")
        async with real.executor.exec(ExecRequest(attempt=request, command=command)) as execution:
            async for chunk in execution.output():
                left.append(psutil.Process(int(chunk.data)))
                launcher = left[0].parents()[1]
                launcher.kill()
                break
            await execution.wait()

    with pytest.raises(Temporary, match="was killed"):
        await run()
    assert await run_beside(real, "exit 3") == (3, b"", b"")
    await until(lambda: not left[0].is_running() or left[0].status() == psutil.STATUS_ZOMBIE)


async def test_an_agent_that_is_gone_takes_the_commands_beside_its_tasks_with_it(real: Harness) -> None:
    await real.start("run")
    request = StartRequest(task_id="t1", attempt=1, spec=TaskSpec(command=("x",)))
    async with real.executor.exec(ExecRequest(attempt=request, command=("sleep", "600"))):
        await until(lambda: find_beside())
        family = find_beside()
        real.executor.close()  # closes the socket, as the end of the agent's process does
        await until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family))


@pytest.fixture(params=["real", pytest.param("docker", marks=pytest.mark.docker)])
def with_terminals(request: pytest.FixtureRequest) -> Harness:
    found: Harness = request.getfixturevalue(request.param)
    return found


async def test_a_command_beside_a_task_can_have_a_terminal_that_changes_its_size(with_terminals: Harness) -> None:
    await with_terminals.start("run")
    request = StartRequest(task_id="t1", attempt=1, spec=TaskSpec(command=("x",)))
    # Engines before API 1.42 give a terminal its size only when the command runs already.
    script = "test -t 0 && test -t 2 || exit; until [ \"$(stty size 2>&1)\" = '17 91' ]; do sleep 0.01; done; "
    script += "trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done"
    said = b""
    async with (
        asyncio.timeout(DEADLINE_S),
        with_terminals.executor.exec(
            ExecRequest(attempt=request, command=("sh", "-c", script), stdin=True, terminal=TerminalSize(91, 17))
        ) as execution,
    ):
        async for chunk in execution.output():
            assert chunk.stream == "stdout"
            said += chunk.data
            if b"ready" in chunk.data:
                await execution.resize(TerminalSize(120, 40))
        assert await execution.wait() == 5
    assert said.split() == [b"ready", b"40", b"120"]


async def test_control_c_in_a_terminal_interrupts_the_command(with_terminals: Harness) -> None:
    await with_terminals.start("run")
    request = StartRequest(task_id="t1", attempt=1, spec=TaskSpec(command=("x",)))
    script = "trap 'exit 6' INT; echo ready; while :; do sleep 0.05; done"
    async with (
        asyncio.timeout(DEADLINE_S),
        with_terminals.executor.exec(
            ExecRequest(attempt=request, command=("sh", "-c", script), stdin=True, terminal=TerminalSize())
        ) as execution,
    ):
        async for chunk in execution.output():
            if b"ready" in chunk.data:
                await execution.write(b"\x03")
        assert await execution.wait() == 6


def test_launcher_and_agent_mean_the_same_by_a_fault() -> None:
    assert launcher.FAULT == launches.FAULT
