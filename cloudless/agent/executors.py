"""What this node runs its tasks with, by name. One may be awaited: it is known of, and comes later."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping

from loguru import logger

from cloudless.core.localtask import LocalTask
from cloudless.core.model import Instance
from cloudless.errors import ExecutorAway, ExecutorError, NotFound, Permanent
from cloudless.ports import Executor


class Executors:
    """The executors of one agent. `awaited` are the names of those that are to come."""

    def __init__(self, found: Mapping[str, Executor]) -> None:
        self._found = dict(found)
        self.awaited: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[Executor]:
        return iter(tuple(self._found.values()))

    def find(self, task: LocalTask) -> Executor | None:
        """Return what runs the task, None if nothing here does."""
        return self._found.get(task.desired.spec.executor.value)

    def get(self, task: LocalTask) -> Executor:
        """Return what runs the task. Raises ExecutorAway while it is awaited, Permanent if this node has none such."""
        name = task.desired.spec.executor.value
        found = self._found.get(name)
        if found is None and name in self.awaited:
            raise ExecutorAway(f"this node has no {name} executor yet")
        if found is None:
            raise Permanent(f"this node has no {name} executor", hint=f"it has: {', '.join(self._found)}")
        return found

    def is_awaited(self, task: LocalTask) -> bool:
        return task.desired.spec.executor.value in self.awaited

    async def adopt(self, awaited: Collection[str]) -> list[Instance]:
        """Return what all of them know of an earlier life; from now on `awaited` are to come. Raises ExecutorError."""
        self.awaited = frozenset(awaited)
        return [instance for executor in self for instance in await executor.adopt()]

    async def add(self, executor: Executor) -> tuple[Instance, ...]:
        """Take in one that came, and return what it knows. Raises ExecutorError, changing nothing."""
        instances = await executor.adopt()
        self._found[executor.name] = executor
        self.awaited -= {executor.name}
        return instances

    async def wait(self, task: LocalTask, attempt: int, retry_s: float) -> Instance:
        """Return how an attempt ended, however long it takes; what cannot be waited for is asked again."""
        while True:
            try:
                return await self.get(task).wait(task.id, attempt)
            except NotFound:
                return Instance(task_id=task.id, attempt=attempt, running=False, message="its files are gone")
            except (ExecutorError, OSError) as error:
                logger.warning("task {task}: cannot be waited for: {}", error, task=task.id)
                await asyncio.sleep(retry_s)
