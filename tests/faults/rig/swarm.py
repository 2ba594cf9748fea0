"""Many agents in one process: everything of a real agent but its processes and its disk.

`python -m tests.faults.rig.swarm COUNT COORDINATORS` runs agents swarm-0, swarm-1, … until stdin is closed. The first
line of stdin says, as JSON, by which token and where they are let in; nothing of that, and all is plain.
Sessions, links, jitter, gate and task runner are the product's own; tasks run on a fake executor. Four times a second
it prints, as a line of JSON, how many have a primary coordinator, how many a warm one, and how often they dialled.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any, cast

from loguru import logger

from cloudless.adapters.grpc.channel import INSECURE, Dialler
from cloudless.adapters.grpc.identity_calls import ask_identity_service
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import enrol
from cloudless.adapters.system import SystemClock
from cloudless.agent.assignments import Gate
from cloudless.agent.config import AgentLimits, build_node_info
from cloudless.agent.dialling import grpc_dial
from cloudless.agent.journal import Head, Journal
from cloudless.agent.links import Links
from cloudless.agent.reports import ReportBook
from cloudless.agent.session import EndKind, SessionParts
from cloudless.agent.tasks import TaskRunner
from cloudless.core.model import Resources, Role
from cloudless.settings import AgentSettings
from cloudless.testing.fake_executor import FakeExecutor
from cloudless.testing.fixed_seeds import FixedSeeds

ZONE = "swarm"
_TELL_S = 0.25
_COME_TOGETHER = 10
_CAPACITY = Resources(cpu_millicores=64_000, memory_mb=64_000, storage_mb=64_000, bandwidth_mbps=10_000)


@dataclass(frozen=True, slots=True)
class News:
    """What the swarm tells of itself. `running`: tasks; `refused`: assignments that were not followed."""

    at_s: float
    primary: int
    warm: int
    dialled: int
    running: int
    refused: int
    lost: int


class _Memory:
    """A journal that forgets: an agent of the swarm lives once."""

    async def save(self, task: object) -> None: ...

    async def delete(self, task_id: str) -> None: ...

    async def save_head(self, head: Head) -> None: ...


class SwarmAgent:
    """One agent."""

    def __init__(self, name: str, coordinators: tuple[str, ...], invitation: dict[str, Any]) -> None:
        self._name, self._invitation = name, invitation
        self._dialler = INSECURE
        settings = AgentSettings(
            node_id=name, coordinators=coordinators, zone=ZONE, capacity=_CAPACITY, listen_address="127.0.0.1:1",
            data_dir=Path("/nonexistent"),
        )  # fmt: skip
        limits, journal, reports = AgentLimits(), cast("Journal", _Memory()), ReportBook()
        clock = SystemClock()
        executor = FakeExecutor()
        self.refused = 0
        self.runner = TaskRunner(settings, limits, {executor.name: executor}, journal, reports, clock)
        head = Head(incarnation=time.time_ns() // 1_000_000, agent_id=name)
        info = build_node_info(settings, (executor.name,), name, {})
        self.links = Links(
            FixedSeeds(coordinators),
            SessionParts(
                info=lambda: info,
                limits=limits,
                clock=clock,
                random=SystemRandom(),
                dial=lambda address: grpc_dial(self._dialler, limits)(address),
                gate=Gate(head, journal, name),
                runner=self.runner,
                reports=reports,
                on_round_trip=lambda seconds: None,
                on_refused=self._on_refused,
                on_resent=lambda count: None,
            ),
        )

    def _on_refused(self, kind: str) -> None:
        self.refused += 1

    async def _enter(self) -> None:
        """Be let in, if there is somebody to be told from."""
        if self._invitation:
            directory = IdentityDir(Path(self._invitation["home"]) / self._name)
            token, doors = self._invitation["token"], self._invitation["doors"]
            made = await enrol(directory, token, self._name, Role.AGENT, doors, ask_identity_service)
            self._dialler = Dialler(lambda: made)

    async def run(self) -> None:
        await self._enter()
        await self.runner.recover((), incarnation=1)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.runner.run())
            group.create_task(self.links.run())


def _news(agents: list[SwarmAgent]) -> News:
    lost = (EndKind.BROKEN, EndKind.SILENT, EndKind.SHED)
    return News(
        at_s=time.monotonic(),
        primary=sum(agent.links.primary is not None for agent in agents),
        warm=sum(agent.links.count_warm() > 0 for agent in agents),
        dialled=sum(agent.links.dialled for agent in agents),
        running=sum(
            count
            for agent in agents
            for state, count in agent.runner.count_states().items()
            if state.value == "RUNNING"
        ),
        refused=sum(agent.refused for agent in agents),
        lost=sum(agent.links.ends[kind] for agent in agents for kind in lost),
    )


async def _run(count: int, coordinators: tuple[str, ...]) -> None:
    reader: Any = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    invitation = json.loads(await reader.readline())
    agents = [SwarmAgent(f"swarm-{number}", coordinators, invitation) for number in range(count)]
    work: list[asyncio.Task[None]] = []
    ending = asyncio.create_task(reader.read())
    while not ending.done():
        # They come a few at a time: all at once, on one machine, they would only be in each other's way.
        if all(agent.links.primary for agent in agents[: len(work)]):
            work += [asyncio.create_task(agent.run()) for agent in agents[len(work) : len(work) + _COME_TOGETHER]]
        print(json.dumps(asdict(_news(agents))), flush=True)
        done, _ = await asyncio.wait([ending, *work], timeout=_TELL_S, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {ending}:
            task.result()
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)


if __name__ == "__main__":
    logger.remove()
    asyncio.run(_run(int(sys.argv[1]), tuple(sys.argv[2].split(","))))
