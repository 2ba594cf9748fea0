"""The node's Docker engine as an executor: taken in when it is there or comes later, withdrawn while it is away.

::

    looking ──engine answers, containers adopted──► serving ◄──answers──► away (not offered for new tasks)

An agent without an engine runs all the same, with processes only; its containers of before are then neither ended nor
started anew: their state is unknown until the engine is back. An engine that is away for `AWAY_AFTER_S` is no longer
among the node's executors, so that nothing more is placed here for it; its tasks stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loguru import logger

from cloudless.adapters.docker import DockerExecutor, Engine
from cloudless.agent.tasks import TaskRunner
from cloudless.errors import ExecutorError
from cloudless.settings import AgentSettings

LOOK_PERIOD_S = 5.0
FIRST_LOOK_S = 5.0
AWAY_AFTER_S = 30.0
NAME = DockerExecutor.name


class DockerSupply:
    """See the module. `on_change` is called when `offered` changes: whether tasks may be placed here for it."""

    def __init__(
        self, settings: AgentSettings, agent_id: str, runner: TaskRunner, on_change: Callable[[], None]
    ) -> None:
        self.offered = False
        self._enabled = settings.docker != "false"
        self._expected = settings.docker == "true"
        self._host = settings.docker_host
        self._agent_id = agent_id
        self._runner = runner
        self._on_change = on_change
        self._engine: Engine | None = None
        self._running: asyncio.Task[None] | None = None
        self._said = ""

    @property
    def awaited(self) -> frozenset[str]:
        """Return the executors that may still come."""
        return frozenset({NAME} if self._enabled else ())

    async def look_first(self) -> None:
        """Take the engine in if it is there already; a slow one is not waited for."""
        if self._enabled:
            try:
                async with asyncio.timeout(FIRST_LOOK_S):
                    await self._look()
            except TimeoutError:
                self._say(f"the Docker engine at {self._host} is slow to answer; the agent goes on without it")

    async def run(self) -> None:
        """Look for the engine until it is there, then offer it whenever it answers. Ends by being cancelled."""
        if not self._enabled:
            await asyncio.Event().wait()
        try:
            while self._running is None:
                await asyncio.sleep(LOOK_PERIOD_S)
                await self._look()
            await self._watch()
        finally:
            if self._running is not None:
                self._running.cancel()

    async def _look(self) -> None:
        """Take the engine in if it answers."""
        engine = self._engine = self._engine or Engine(self._host)
        if not await engine.is_listening():
            self._say(f"no Docker engine listens at {self._host}")
            return
        if not await engine.probe():
            self._say(engine.fault)
            return
        executor = DockerExecutor(engine, self._agent_id, tell=self._runner.tell)
        running = asyncio.create_task(executor.run(), name="docker-executor")
        try:
            await self._runner.add_executor(executor)
        except BaseException as error:
            running.cancel()
            if not isinstance(error, ExecutorError):
                raise
            self._say(f"the Docker engine at {self._host} cannot be used yet: {error}")
            return
        self._running = running
        logger.info("the Docker engine at {} answers: tasks may run in containers", self._host)
        self._offer(True)

    async def _watch(self) -> None:
        """Offer the executor while the engine answers. Raises what ended it."""
        assert self._engine is not None
        assert self._running is not None
        loop, away_s = asyncio.get_running_loop(), 0.0
        while True:
            done, _ = await asyncio.wait({self._running}, timeout=1.0)
            if done:
                self._running.result()
            away_s = away_s or loop.time() if self._engine.fault else 0.0
            if not away_s:
                self._offer(True)
            elif loop.time() - away_s >= AWAY_AFTER_S:
                self._offer(False)

    def _offer(self, offered: bool) -> None:
        if offered != self.offered:
            self.offered = offered
            if not offered:
                logger.warning("the Docker engine at {} is away: no tasks are taken for it", self._host)
            self._on_change()

    def _say(self, words: str) -> None:
        """Say why there is no engine, once; loudly only if there should be one."""
        if words != self._said:
            self._said = words
            (logger.warning if self._expected else logger.info)("{}; tasks run as processes only", words)
