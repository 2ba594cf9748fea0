"""Try the probes of the node's tasks: each at its own time, none waiting for another.

::

    task as it is ──follow──► a loop per probe: wait ─► try ─► tally ─► tell the task's events `Probed`

What is probed follows from each task's state (`core.probing.probes_of`); this only carries it out. A probe has one try
under way at most, so a task has two, and nothing is shared that one of them could hold: connections are asyncio
streams, and commands hold a place among `probe_starts_max` only until they have been started, apart for each executor.
A try ends at the probe's `timeout_s`, counted from when it began to run: what ran is killed, with all it started. When
the agent itself was held up meanwhile (stopped, or starved by a busy machine) nobody can say who was late: no answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from cloudless.adapters.http.asking import ask_http, ask_tcp
from cloudless.core.localtask import LocalTask, Probed, ProbePurpose
from cloudless.core.model import Probe, ProbeKind
from cloudless.core.probing import Answer, Tally, count, first_try_s, judge, next_try_s, probes_of
from cloudless.errors import ExecutorError, NotFound, Permanent
from cloudless.ports import Clock, ExecRequest, Executor, StartRequest

WORDS_BYTES_MAX = 200
HELD_UP_S = 1.0
"""A time-out that is noticed so much too late was not the task's."""
START_TIMEOUT_S = 60.0
"""A command whose executor has not even started it by then was not asked."""

Try = tuple[Answer, str]
"""What a try came to, and in words what was wrong ("": nothing)."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a task is asked: its ports are at `host` (an IP address); `request` is what it was started with."""

    host: str
    request: StartRequest
    executor: Executor


@dataclass(slots=True)
class _Loops:
    """The loops of one attempt's probes."""

    attempt: int
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Prober:
    """See the module. `find` returns where a task can be asked, None if nowhere; `tell` takes what became of it."""

    def __init__(
        self,
        clock: Clock,
        starts_max: int,
        find: Callable[[LocalTask], Surroundings | None],
        tell: Callable[[str, Probed], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._clock, self._find, self._tell, self._spawn = clock, find, tell, spawn
        self._starts: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(starts_max))
        self._loops: dict[str, _Loops] = {}
        self._closed = False
        self.results: Counter[tuple[ProbePurpose, Answer]] = Counter()

    def follow(self, task: LocalTask) -> None:
        """Probe the task as it is now: begin, go on, or end."""
        probes = [] if self._closed else list(probes_of(task))
        loops = self._loops.get(task.id)
        if loops is not None and probes and loops.attempt == task.attempt:
            return
        self.forget(task.id)
        if probes:
            tasks = [self._spawn(self._probe(task, purpose, probe)) for purpose, probe in probes]
            self._loops[task.id] = _Loops(task.attempt, tasks)

    def forget(self, task_id: str) -> None:
        """Ask the task no more."""
        loops = self._loops.pop(task_id, None)
        for one in loops.tasks if loops else ():
            one.cancel()

    def close(self) -> None:
        """Ask nobody any more."""
        self._closed = True
        for task_id in list(self._loops):
            self.forget(task_id)

    async def _probe(self, task: LocalTask, purpose: ProbePurpose, probe: Probe) -> None:
        """Try one probe of one attempt again and again, until cancelled."""
        tally = Tally()
        due_s = first_try_s(task, probe, self._clock.monotonic_s())
        while True:
            await self._clock.sleep(max(0.0, due_s - self._clock.monotonic_s()))
            answer, words = await self._try(task, probe)
            self.results[purpose, answer] += 1
            tally = count(tally, answer)
            if answer is Answer.UNKNOWN:
                logger.debug("task {task}: its {} probe cannot be tried: {}", purpose.value, words, task=task.id)
            else:
                self._tell(task.id, Probed(task.attempt, purpose, judge(probe, tally), words))
            due_s = next_try_s(probe, due_s, self._clock.monotonic_s())

    async def _try(self, task: LocalTask, probe: Probe) -> Try:
        where = self._find(task)
        if where is None:
            return Answer.UNKNOWN, "this node has nothing that runs it now"
        if probe.kind is ProbeKind.EXEC:
            return await self._ask_exec(probe, where)
        port = task.ports.get(probe.port)
        if port is None:
            return Answer.FAILURE, f"the task has no port {probe.port}"
        asking = ask_tcp(where.host, port) if probe.kind is ProbeKind.TCP else ask_http(where.host, port, probe.path)
        ends_s = self._clock.monotonic_s() + probe.timeout_s
        try:
            async with asyncio.timeout(probe.timeout_s):
                wrong = await asking
        except TimeoutError:
            return self._judge_lateness(ends_s, f"no answer from port {port} within {probe.timeout_s:g} s")
        return (Answer.FAILURE, wrong) if wrong else (Answer.SUCCESS, "")

    async def _ask_exec(self, probe: Probe, where: Surroundings) -> Try:
        try:
            return await self._run(probe, where)
        except Permanent as error:
            return Answer.FAILURE, str(error)
        except (NotFound, ExecutorError, OSError) as error:
            # The attempt has just ended, or its executor is away: that says nothing of how the task fares.
            return Answer.UNKNOWN, str(error)

    async def _run(self, probe: Probe, where: Surroundings) -> Try:
        request = ExecRequest(attempt=where.request, command=probe.command)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(START_TIMEOUT_S), self._starts[where.executor.name]:
                    execution = await stack.enter_async_context(where.executor.exec(request))
            except TimeoutError:
                return Answer.UNKNOWN, f"not started within {START_TIMEOUT_S:g} s"
            said, ends_s = b"", self._clock.monotonic_s() + probe.timeout_s
            try:
                async with asyncio.timeout(probe.timeout_s):
                    async for chunk in execution.output():
                        said += chunk.data[: WORDS_BYTES_MAX - len(said)]
                    code = await execution.wait()
            except TimeoutError:
                return self._judge_lateness(ends_s, f"{probe.command[0]} did not end within {probe.timeout_s:g} s")
        if code == 0:
            return Answer.SUCCESS, ""
        words = " ".join(said.decode(errors="replace").split())
        return Answer.FAILURE, f"{probe.command[0]} ended with {code}" + (f": {words}" if words else "")

    def _judge_lateness(self, ends_s: float, words: str) -> Try:
        """Return what a time-out means that should have been noticed at `ends_s` (monotonic seconds)."""
        if self._clock.monotonic_s() - ends_s > HELD_UP_S:
            return Answer.UNKNOWN, "the agent was held up"
        return Answer.FAILURE, words
