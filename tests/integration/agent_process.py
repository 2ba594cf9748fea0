"""An agent process for tests, over several lives on one data directory, and a pair of scripted coordinators."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cloudless.core.model import TaskDesired
from tests.integration.scripted_coordinator import AgentStream, ScriptedCoordinator

ROOT = Path(__file__).parents[2]
DEADLINE_S = 15.0


async def until(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.005)


class AgentProcess:
    """One agent on one data directory, over several lives."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.log = data_dir.with_name("agent.log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *coordinators: str, **environment: str) -> None:
        variables = {
            "PATH": os.environ["PATH"],
            "CLOUDLESS_NODE_ID": "n1",
            "CLOUDLESS_TLS_ENABLED": "false",
            "CLOUDLESS_ZONE": "zone-a",
            "CLOUDLESS_COORDINATOR_ADDR": ",".join(coordinators),
            "CLOUDLESS_DATA_DIR": str(self.data_dir),
            "CLOUDLESS_AGENT_ADDR": "127.0.0.1:0",
            "CLOUDLESS_METRICS_ADDR": "127.0.0.1:0",
            "CLOUDLESS_DOCKER_ENABLED": "false",
            **environment,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cloudless.agent.main"], env=variables, cwd=ROOT, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the agent and return its exit code."""
        assert self.process
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, DEADLINE_S)

    def logged(self, words: str) -> int:
        return self.log.read_text().count(words)


Pair = tuple[ScriptedCoordinator, ScriptedCoordinator]


def primary_of(pair: Pair) -> ScriptedCoordinator:
    return next(one for one in pair if one.has_primary)


def other_of(pair: Pair, one: ScriptedCoordinator) -> ScriptedCoordinator:
    return pair[1] if one is pair[0] else pair[0]


def assign_all(pair: Pair, *tasks: TaskDesired, revision: int = 10, term: int = 1) -> None:
    """Let each coordinator assign `tasks` to whoever becomes primary with it."""

    def assign(stream: AgentStream) -> None:
        stream.assign(*tasks, revision=revision, term=term)

    for one in pair:
        one.on_primary = assign


async def both_open(pair: Pair) -> None:
    await until(lambda: sum(one.has_primary for one in pair) == 1)
    await until(lambda: all(one.streams and one.stream.open and one.stream.heartbeats for one in pair))
