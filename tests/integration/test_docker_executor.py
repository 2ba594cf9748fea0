"""What only containers can show, on a Docker engine of the tests' own: what is translated, kept, named, and survived.

The engine is stopped, crashed and frozen, as in life; the contract itself is in `tests/contracts/test_executor.py`.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.docker import DockerExecutor, Engine, EngineLimits
from cloudless.core.model import ImagePullPolicy, Instance, Limits, Port, SecurityContext, TaskSpec, Volume
from cloudless.errors import ExecutorAway, ImageMissing, NotFound, Permanent, PortTaken, Temporary
from cloudless.ports import LogChunk, LogQuery, StartRequest
from tests.docker_engine import IMAGE, DockerDaemon, image_layer
from tests.integration.image_registry import ImageRegistry

pytestmark = [pytest.mark.integration, pytest.mark.docker]

DEADLINE_S = 30.0
LIMITS = EngineLimits(
    call_timeout_s=5.0, probe_period_s=0.2, probe_timeout_s=0.5, retry_s=0.1, list_period_s=1.0, progress_period_s=0.0
)
SLEEP = "trap 'exit 143' TERM; echo ready; sleep 600 & wait"


class Agent:
    """One agent's executor on the engine, over several lives, and what it told."""

    def __init__(self, daemon: DockerDaemon, agent_id: str = "agent-1") -> None:
        self.daemon, self.agent_id = daemon, agent_id
        self.told: list[tuple[str, int, str]] = []
        self.executor: DockerExecutor
        self._running: asyncio.Task[None] | None = None
        self.begin()

    def begin(self) -> None:
        self.engine = Engine(self.daemon.host, LIMITS)
        self.executor = DockerExecutor(self.engine, self.agent_id, tell=lambda *words: self.told.append(words))
        self._running = asyncio.create_task(self.executor.run())

    async def end(self) -> None:
        if self._running is not None:
            if self._running.done():
                self._running.result()
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    async def start(self, script: str = SLEEP, *, task_id: str = "t1", attempt: int = 1, **spec: Any) -> Instance:
        ports = spec.pop("ports_given", {})
        made = TaskSpec(**{"image": IMAGE, "command": ("sh", "-c", script), "stop_grace_s": 0.5, **spec})
        async with asyncio.timeout(DEADLINE_S):
            instance = await self.executor.start(
                StartRequest(task_id=task_id, attempt=attempt, spec=made, ports=ports, labels={"workload": "web"})
            )
        if script == SLEEP:
            await self.until_printed("ready", task_id)
        return instance

    async def wait(self, task_id: str = "t1", attempt: int = 1) -> Instance:
        async with asyncio.timeout(DEADLINE_S):
            return await self.executor.wait(task_id, attempt)

    async def read(self, task_id: str = "t1", **options: Any) -> list[LogChunk]:
        asked = {"tail_lines": -1, "follow": False, **options}
        async with asyncio.timeout(DEADLINE_S):
            return [chunk async for chunk in self.executor.read_logs(task_id, LogQuery(**asked))]

    async def text(self, task_id: str = "t1") -> str:
        return b"".join(chunk.data for chunk in await self.read(task_id)).decode()

    async def until_printed(self, word: str, task_id: str = "t1") -> None:
        async with (
            asyncio.timeout(DEADLINE_S),
            aclosing(self.executor.read_logs(task_id, LogQuery(follow=True))) as chunks,
        ):
            async for chunk in chunks:
                if word.encode() in chunk.data:
                    return

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.02)

    def states(self) -> dict[str, str]:
        return {row["Names"][0].removeprefix("/"): row["State"] for row in self.daemon.containers()}


@pytest.fixture
async def agent(docker_daemon: DockerDaemon) -> AsyncIterator[Agent]:
    agent = Agent(docker_daemon)
    yield agent
    await agent.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    return number


# --- what a task gets ---------------------------------------------------------------------------


async def test_a_published_port_reaches_the_task(agent: Agent) -> None:
    number = free_port()
    started = await agent.start(
        "while :; do echo hello on $CLOUDLESS_PORT_WEB | nc -l -p $CLOUDLESS_PORT_WEB; done",
        ports=(Port(name="web", container_port=8000),),
        ports_given={"web": number},
    )
    assert started.ports == {"web": number}

    async def ask() -> bytes:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", number)
            async with asyncio.timeout(1):
                data = await reader.read()
            writer.close()
        except (OSError, TimeoutError):
            return b""
        return data

    async with asyncio.timeout(DEADLINE_S):
        while (said := await ask()) != b"hello on 8000\n":
            assert said == b""


async def test_a_taken_port_is_named_and_leaves_no_container(agent: Agent) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=str(number)):
            await agent.start(ports=(Port(name="web"),), ports_given={"web": number})
    assert agent.states() == {}


async def test_both_streams_are_read_apart_and_in_order(agent: Agent) -> None:
    await agent.start("echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three")
    await agent.wait()
    said = [(chunk.stream, chunk.data, chunk.attempt) for chunk in await agent.read()]
    assert said == [("stdout", b"one\n", 1), ("stderr", b"two\n", 1), ("stdout", b"three\n", 1)]
    assert [chunk.data for chunk in await agent.read(tail_lines=1)] == [b"three\n"]


async def test_following_goes_on_with_the_next_attempt_and_ends_with_the_last(agent: Agent) -> None:
    await agent.start("echo first; sleep 0.3; exit 1")
    following = asyncio.create_task(agent.read(follow=True))
    await agent.wait()
    await agent.start("echo second", attempt=2)
    seen = b"".join(chunk.data for chunk in await following)
    assert seen in (b"first\nsecond\n", b"first\n"), "the next attempt may come after the follower has gone"
    assert b"".join(chunk.data for chunk in await agent.read(follow=True)) == b"second\n"


async def test_a_reader_that_leaves_lets_its_thread_go(agent: Agent) -> None:
    await agent.start("while :; do echo x; done")
    for _ in range(5):
        async with aclosing(agent.executor.read_logs("t1", LogQuery(tail_lines=10, follow=True))) as chunks:
            async for chunk in chunks:
                assert len(chunk.data) <= 64 * 1024
                break
    # One remains: it listens to the engine's events.
    await agent.until(lambda: sum(thread.name == "docker" for thread in threading.enumerate()) <= 1)


async def test_volumes_of_the_node_are_read_only_if_asked_and_own_ones_live_as_long_as_the_task(
    agent: Agent, tmp_path: Path
) -> None:
    (tmp_path / "given").write_text("from the node\n")
    volumes = (
        Volume(name="given", mount_path="/given", host_path=str(tmp_path), read_only=True),
        Volume(name="own", mount_path="/own"),
        Volume(name="fast", mount_path="/fast", size_mb=1),
    )
    await agent.start(
        "cat /given/given; touch /given/no 2>/dev/null || echo refused; echo kept > /own/kept; "
        "dd if=/dev/zero of=/fast/big bs=1k count=2000 2>/dev/null || echo full; exit 1",
        volumes=volumes,
    )
    assert (await agent.wait()).exit_code == 1
    assert await agent.text() == "from the node\nrefused\nfull\n"
    assert not (tmp_path / "no").exists()
    await agent.start("cat /own/kept", attempt=2, volumes=volumes)
    await agent.wait(attempt=2)
    assert await agent.text() == "kept\n"
    await agent.executor.remove("t1")
    client = agent.daemon.client()
    assert not client.volumes()["Volumes"]
    client.close()


async def test_a_source_that_is_not_there_is_permanent(agent: Agent) -> None:
    with pytest.raises(Permanent, match="/nowhere/at/all"):
        await agent.start(volumes=(Volume(name="v", mount_path="/v", host_path="/nowhere/at/all"),))


async def test_user_root_and_capabilities_are_as_asked(agent: Agent) -> None:
    await agent.start(
        "id -u; id -g; touch /x 2>/dev/null || echo read-only; grep CapEff /proc/self/status; touch /tmp/y && echo tmp",
        security_context=SecurityContext(
            run_as_user=7, run_as_group=9, read_only_root=True, drop_capabilities=("ALL",), private_tmp=True
        ),
    )
    await agent.wait()
    lines = (await agent.text()).split("\n")
    assert lines[:3] == ["7", "9", "read-only"]
    assert int(lines[3].split()[1], 16) == 0
    assert lines[4] == "tmp"


async def test_a_task_out_of_memory_says_so_with_its_limit(agent: Agent) -> None:
    await agent.start("tail /dev/zero; echo outlived", limits=Limits(memory_mb=16))
    ended = await agent.wait()
    if "outlived" in await agent.text():
        assert ended.message == "ended after a process of it was killed: out of memory (limit 16 MB)"
    await agent.start("exec tail /dev/zero", attempt=2, limits=Limits(memory_mb=16))
    ended = await agent.wait(attempt=2)
    assert (ended.exit_code, ended.signal) == (-1, signal.SIGKILL)
    assert ended.message == "killed: out of memory (limit 16 MB)"


# --- images -------------------------------------------------------------------------------------


async def test_an_image_that_may_not_be_fetched_is_missing(agent: Agent) -> None:
    with pytest.raises(ImageMissing, match="not on this node"):
        await agent.start(image="nobody/nothing:1", image_pull_policy=ImagePullPolicy.NEVER)
    assert agent.states() == {}


async def test_images_are_fetched_once_for_all_who_wait_and_as_the_policy_says(agent: Agent) -> None:
    with ImageRegistry(image_layer("fetched")) as registry:
        spec: dict[str, Any] = {"image": registry.image}
        first, second = await asyncio.gather(
            agent.start("exit 0", task_id="t1", **spec), agent.start("exit 0", task_id="t2", **spec)
        )
        assert {first.task_id, second.task_id} == {"t1", "t2"}
        assert registry.layers_asked == 1
        assert any(words.startswith(f"pulling image {registry.image}") for *_, words in agent.told)
        await agent.start("exit 0", task_id="t3", **spec)
        with pytest.raises(ImageMissing, match="cannot be had"):
            await agent.start(task_id="t4", image=registry.image.removesuffix("1") + "2")
    with pytest.raises(Temporary, match="cannot be fetched now"):
        await agent.start(task_id="t5", image_pull_policy=ImagePullPolicy.ALWAYS, **spec)
    await agent.start("exit 0", task_id="t6", **spec)


async def test_a_task_that_is_stopped_does_not_wait_for_its_image(agent: Agent) -> None:
    with ImageRegistry(image_layer("held back")) as registry:
        registry.open.clear()
        starting = asyncio.create_task(
            agent.start("exit 0", image=registry.image, image_pull_policy=ImagePullPolicy.ALWAYS)
        )
        await agent.until(lambda: registry.layers_asked)
        await agent.executor.stop("t1", 1, grace_s=5)
        with pytest.raises(Temporary, match="stopped while"):
            await starting
    assert agent.states() == {}


# --- lives of the agent and of the engine -------------------------------------------------------


async def test_another_life_of_the_agent_touches_no_container(agent: Agent) -> None:
    started = await agent.start()
    await agent.start("exit 7", task_id="t2")
    await agent.wait("t2")
    await agent.end()
    agent.begin()
    found = await agent.executor.adopt()
    assert [(one.task_id, one.running, one.exit_code) for one in found] == [("t1", True, -1), ("t2", False, 7)]
    assert (found[0].pid, found[0].started_at_ms) == (started.pid, started.started_at_ms)
    assert (await agent.start()).pid == started.pid


async def test_what_is_not_this_agents_is_neither_adopted_nor_removed(agent: Agent) -> None:
    other = Agent(agent.daemon, "agent-2")
    client = agent.daemon.client()
    try:
        await other.start(task_id="t1")
        client.create_container(IMAGE, ["true"], name="stranger")
        assert await agent.executor.adopt() == ()
        with pytest.raises(NotFound):
            await agent.executor.wait("t1", 1)
        with pytest.raises(Temporary, match="not this agent's"):
            await agent.start(task_id="t1")
        await agent.executor.remove("t1")
        await agent.executor.stop("t1", 1, grace_s=0)
        assert agent.states() == {"cloudless-t1-1": "running", "stranger": "created"}
    finally:
        client.close()
        await other.end()


async def test_a_container_that_was_made_and_never_started_is_not_adopted_but_its_attempt_goes_on(agent: Agent) -> None:
    await agent.start("exit 0", task_id="t0")  # the engine is warm
    client = agent.daemon.client()
    for task_id in ("t1", "t2"):
        labels = {"cloudless.task": task_id, "cloudless.attempt": "1", "cloudless.agent_id": "agent-1"}
        client.create_container(IMAGE, ["true"], name=f"cloudless-{task_id}-1", labels=labels)
    client.close()
    assert (await agent.start("exit 0", task_id="t1")).task_id == "t1"
    assert [one.task_id for one in await agent.executor.adopt()] == ["t0", "t1"]
    assert "cloudless-t2-1" not in agent.states()


async def test_a_later_attempt_ends_an_earlier_one_and_only_the_newest_are_kept(agent: Agent) -> None:
    await agent.start()
    await agent.start(attempt=2)
    assert agent.states() == {"cloudless-t1-2": "running"}
    with pytest.raises(Temporary, match="later attempt"):
        await agent.start(attempt=1)
    for attempt in (3, 4, 5):
        await agent.executor.stop("t1", attempt - 1, grace_s=0)
        await agent.wait(attempt=attempt - 1)
        await agent.start(attempt=attempt)
    assert agent.states() == {"cloudless-t1-4": "exited", "cloudless-t1-5": "running"}


@pytest.mark.parametrize("crash", [False, True], ids=["in order", "by a crash"])
async def test_an_engine_that_restarts_is_listed_anew_and_nothing_runs_twice(agent: Agent, crash: bool) -> None:
    await agent.start()
    waiting = asyncio.create_task(agent.executor.wait("t1", 1))
    await asyncio.to_thread(agent.daemon.kill if crash else agent.daemon.stop)
    await agent.until(lambda: agent.engine.fault)
    if crash:  # else it was seen to end before the engine did
        await agent.until(lambda: any("state unknown" in words for *_, words in agent.told))
        assert not waiting.done(), "what nobody can see has not ended"
    with pytest.raises(ExecutorAway):
        await agent.executor.adopt()
    await asyncio.to_thread(agent.daemon.start)
    async with asyncio.timeout(DEADLINE_S):
        ended = await waiting
    assert not ended.running
    assert not crash or agent.told[-1] == ("t1", 1, "")
    again = await agent.start(attempt=1)
    assert not again.running, "an attempt that has ended is not begun again"
    await agent.start(attempt=2)
    assert agent.states() == {"cloudless-t1-1": "exited", "cloudless-t1-2": "running"}
    (_, adopted) = await agent.executor.adopt()
    assert (adopted.attempt, adopted.running) == (2, True)


async def test_a_frozen_engine_blocks_nobody_and_is_taken_up_again(agent: Agent) -> None:
    await agent.start()
    waiting = asyncio.create_task(agent.executor.wait("t1", 1))
    await asyncio.sleep(0)
    agent.daemon.freeze()
    asked_s = time.monotonic()
    calls = [asyncio.create_task(agent.executor.adopt()) for _ in range(3 * LIMITS.calls_max)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, ExecutorAway) for outcome in outcomes), outcomes
    assert time.monotonic() - asked_s < LIMITS.call_timeout_s + 1
    assert agent.told[-1][:2] == ("t1", 1)
    assert "state unknown" in agent.told[-1][2]
    refused_s = time.monotonic()
    with pytest.raises(ExecutorAway):
        await agent.executor.remove("t1")
    assert time.monotonic() - refused_s < 0.1, "known to be away, it is not asked"
    # The loop is free all the while: a stop returns at once, and is carried out later.
    await agent.executor.stop("t1", 1, grace_s=0.5)
    assert sum(thread.name == "docker" for thread in threading.enumerate()) <= LIMITS.calls_max + 2
    assert not waiting.done()
    agent.daemon.thaw()
    async with asyncio.timeout(DEADLINE_S):
        ended = await waiting
    assert ended.signal == signal.SIGTERM
    await agent.until(lambda: sum(thread.name == "docker" for thread in threading.enumerate()) <= 1)


async def test_a_start_waits_for_a_frozen_engine_and_says_so_unless_it_is_stopped(agent: Agent) -> None:
    await agent.start("exit 0", task_id="warm")
    agent.daemon.freeze()
    starting = asyncio.create_task(agent.start(task_id="t1"))
    stopped = asyncio.create_task(agent.start(task_id="t2"))
    await agent.until(
        lambda: {task_id for task_id, _, words in agent.told if words.startswith("waits: ")} == {"t1", "t2"}
    )
    await agent.executor.stop("t2", 1, grace_s=1)
    with pytest.raises(ExecutorAway):
        await stopped
    assert not starting.done()
    agent.daemon.thaw()
    assert (await starting).running
    assert agent.states() == {"cloudless-warm-1": "exited", "cloudless-t1-1": "running"}


async def test_a_start_that_happens_after_it_was_given_up_is_undone(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = agent.executor._create

    async def create_and_freeze(*arguments: Any) -> None:
        await create(*arguments)
        agent.daemon.freeze()

    monkeypatch.setattr(agent.executor, "_create", create_and_freeze)
    with pytest.raises(ExecutorAway):
        await agent.start()
    agent.daemon.thaw()
    await agent.until(lambda: agent.daemon.containers() == [])
    assert await agent.executor.adopt() == ()
