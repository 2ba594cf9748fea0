"""End containers: the polite signal, the grace, the kill; asked for again until the engine has done it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress

from cloudless.adapters.docker.engine import Engine
from cloudless.adapters.docker.faults import Refused
from cloudless.adapters.docker.instance import Container
from cloudless.errors import Temporary

KILL_AGAIN_S = 5.0
"""A container that outlives its kill (a process in an uninterruptible wait) is killed again so often."""


class Endings:
    """All endings under way. They do not outlive the agent: the next one asks again for what it still wants ended."""

    def __init__(
        self,
        engine: Engine,
        find: Callable[[str], Awaitable[Container | None]],
        changes: Callable[[str], AbstractContextManager[asyncio.Event]],
    ) -> None:
        self._engine, self._find, self._changes = engine, find, changes
        self._graces: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._shorter: dict[str, asyncio.Event] = {}

    def begin(self, name: str, grace_s: float) -> None:
        """Begin to end a container; asked again, the shorter grace counts."""
        if name in self._tasks:
            if grace_s < self._graces[name]:
                self._graces[name] = grace_s
                self._shorter[name].set()
            return
        self._graces[name], self._shorter[name] = grace_s, asyncio.Event()
        self._tasks[name] = task = asyncio.create_task(self._end(name), name=f"end-{name}")
        task.add_done_callback(lambda _: self._forget(name))

    def close(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()

    def _forget(self, name: str) -> None:
        for book in (self._tasks, self._graces, self._shorter):
            book.pop(name, None)

    async def _end(self, name: str) -> None:
        loop, began_s = asyncio.get_running_loop(), None
        with self._changes(name) as changed:
            while True:
                changed.clear()
                pause_s = self._engine.limits.retry_s
                with suppress(Temporary):
                    container = await self._find(name)
                    if container is None or not container.instance.running:
                        return
                    if began_s is None:
                        await self._signal(name, container.stop_signal)
                        began_s = loop.time()
                    pause_s = began_s + self._graces[name] - loop.time()
                    if pause_s <= 0:
                        await self._signal(name, "SIGKILL")
                        pause_s = KILL_AGAIN_S
                await self._pause(name, changed, pause_s)

    async def _signal(self, name: str, signal: str) -> None:
        try:
            await self._engine.call(lambda client: client.kill(name, signal))
        except Refused as refused:
            # Ended meanwhile, or gone: the next look tells.
            if refused.status not in (404, 409):
                raise

    async def _pause(self, name: str, changed: asyncio.Event, pause_s: float) -> None:
        """Wait until the container has changed, the grace was shortened, or the pause is over."""
        shorter = self._shorter[name]
        shorter.clear()
        waits = [asyncio.create_task(changed.wait()), asyncio.create_task(shorter.wait())]
        try:
            await asyncio.wait(waits, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
