"""Know when a coordinator was last heard, and stop what must not go on without one. See `core.autonomy`."""

from __future__ import annotations

import asyncio

from loguru import logger

from cloudless.agent.assignments import Gate
from cloudless.agent.tasks import TaskRunner
from cloudless.core.autonomy import LastWord, describe_overdue, find_overdue, note_period_s
from cloudless.ports import Clock

LOOK_PERIOD_S = 0.25


class Contact:
    """The agent's touch with the cluster; `hear` is called with every word of a coordinator. `run` it."""

    def __init__(self, gate: Gate, runner: TaskRunner, clock: Clock, boot_id: str) -> None:
        self._gate, self._runner, self._clock, self._boot_id = gate, runner, clock, boot_id
        self._word = gate.head.last_word
        self._stopped: set[str] = set()

    def hear(self) -> None:
        self._word = LastWord(self._clock.monotonic_s(), self._boot_id)

    def silence_s(self) -> float:
        """Return for how long no coordinator was heard."""
        return self._word.silence_s(self._clock.monotonic_s(), self._boot_id)

    def look(self) -> None:
        """Stop what has gone on for too long."""
        silence_s = self.silence_s()
        self._stopped &= self._runner.tasks.keys()
        for task_id in find_overdue(self._runner.tasks.values(), silence_s):
            if task_id in self._stopped:
                continue  # being written down
            self._stopped.add(task_id)
            words = describe_overdue(self._runner.tasks[task_id], silence_s)
            logger.warning("task {task}: {}", words, task=task_id)
            self._runner.stop(task_id, words)

    async def run(self) -> None:
        """Look again and again, and keep a note of the last word on disk."""
        while True:
            self.look()
            await self._note()
            await asyncio.sleep(LOOK_PERIOD_S)

    async def _note(self) -> None:
        period_s = note_period_s(self._runner.tasks.values())
        noted = self._gate.head.last_word
        if period_s is None or self._word == noted:
            return
        if noted.boot_id != self._word.boot_id or self._word.heard_s - noted.heard_s >= period_s:
            await self._gate.note(self._word)
