"""What this node and its tasks use now, for whoever asks.

Nothing is measured while nobody asks. A rate needs two looks: the second comes `WINDOW_S` after the first, which may
have been made for an earlier question. All who ask meanwhile get the same answer.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudless.adapters.host.disk import measure_room
from cloudless.adapters.host.load import read_machine_usage
from cloudless.agent.tasks import TaskRunner
from cloudless.core.usage import UNKNOWN, Usage, cpu_millicores
from cloudless.errors import ExecutorError
from cloudless.ports import Clock, Executor
from cloudless.rpc.v1 import usage_pb2 as pb

WINDOW_S = 0.5
WINDOW_MAX_S = 30.0
"""A look older than that says nothing of now."""


@dataclass(frozen=True, slots=True)
class Look:
    """The counters at a moment."""

    at_s: float
    machine: Usage
    tasks: Mapping[str, Usage]


async def measure_tasks(runner: TaskRunner) -> dict[str, Usage]:
    """Return what each task uses that runs; those of an executor that does not answer are left out."""
    by_executor: defaultdict[Executor, list[str]] = defaultdict(list)
    for task in runner.tasks.values():
        if task.pid and (executor := runner.find_executor(task.id)) is not None:
            by_executor[executor].append(task.id)
    found: dict[str, Usage] = {}
    for executor, task_ids in by_executor.items():
        with suppress(ExecutorError, OSError):
            found |= await executor.measure(task_ids)
    return found


class UsageMeter:
    """Measures on demand. `measure_tasks` returns the usage of every task that runs, by id.

    `off_loop` runs what reads files, which a sick disk may hold up, beside the event loop.
    """

    def __init__(
        self,
        node_id: str,
        data_dir: Path,
        measure_tasks: Callable[[], Awaitable[Mapping[str, Usage]]],
        clock: Clock,
        off_loop: Callable[..., Awaitable[Any]] = asyncio.to_thread,
    ) -> None:
        self._node_id, self._data_dir = node_id, data_dir
        self._measure_tasks, self._clock, self._off_loop = measure_tasks, clock, off_loop
        self._last: Look | None = None
        self._measuring: asyncio.Task[pb.NodeUsage] | None = None

    async def measure(self) -> pb.NodeUsage:
        """Return what is used now; takes up to `WINDOW_S` and what the executors take."""
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.create_task(self._measure(), name="usage")
        return await asyncio.shield(self._measuring)

    async def _measure(self) -> pb.NodeUsage:
        before = self._last
        if before is None or self._clock.monotonic_s() - before.at_s > WINDOW_MAX_S:
            before = await self._look()
        missing_s = before.at_s + WINDOW_S - self._clock.monotonic_s()
        if missing_s > 0:
            await self._clock.sleep(missing_s)
        after = self._last = await self._look()
        answer: pb.NodeUsage = await self._off_loop(self._compare, before, after)
        return answer

    async def _look(self) -> Look:
        machine = await self._off_loop(read_machine_usage)
        return Look(self._clock.monotonic_s(), machine, await self._measure_tasks())

    def _compare(self, before: Look, after: Look) -> pb.NodeUsage:
        between_s = after.at_s - before.at_s
        answer = pb.NodeUsage(node_id=self._node_id, usage=_rate(before.machine, after.machine, between_s))
        try:
            room = measure_room(self._data_dir)
            answer.disk_free_bytes, answer.disk_total_bytes = room.free_bytes, room.total_bytes
        except OSError:
            answer.disk_free_bytes = answer.disk_total_bytes = UNKNOWN
        for task_id, usage in sorted(after.tasks.items()):
            answer.tasks.add(task_id=task_id, usage=_rate(before.tasks.get(task_id, Usage()), usage, between_s))
        return answer


def _rate(before: Usage, after: Usage, between_s: float) -> pb.Usage:
    return pb.Usage(cpu_millicores=cpu_millicores(before, after, between_s), memory_bytes=after.memory_bytes)
