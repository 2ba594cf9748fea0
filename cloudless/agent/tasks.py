"""Run the node's tasks: feed each one's events through `core.taskflow`, journal the outcome, carry it out.

::

    assignments ─┐
    executor ────┼─► event ─► step ─► journal ─► actions ─► executor, timers, reports
    timers ──────┘     (one at a time per task)

The journal is written before anything is done, so that after a crash the executor is asked about exactly what
may have been begun. When the journal cannot be written nothing is started: the task waits in BACKOFF and says
why. What is running goes on, and is written down when that works again.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from loguru import logger

from cloudless.agent.clock import read_clock
from cloudless.agent.config import AgentLimits
from cloudless.agent.executors import Executors
from cloudless.agent.journal import Journal
from cloudless.agent.ports import resolve_ports
from cloudless.agent.probes import Prober, Surroundings
from cloudless.agent.reports import ReportBook
from cloudless.agent.starting import build_request, own_ip
from cloudless.agent.steps import StepLog
from cloudless.agent.task_telling import note_outcome, start_span
from cloudless.core.lifecycle import is_final
from cloudless.core.localtask import (
    Action,
    Adopted,
    Assigned,
    BackoffOver,
    Event,
    Exited,
    LocalTask,
    Noted,
    Remove,
    Report,
    ScheduleAt,
    Start,
    Started,
    StartFailed,
    StartFault,
    Stop,
    StopWanted,
    Unlisted,
    Watch,
)
from cloudless.core.model import Instance, TaskDesired, TaskState
from cloudless.core.taskflow import accept, observe, step
from cloudless.errors import ExecutorAway, ExecutorError, NotFound, Permanent, PortTaken
from cloudless.observability import tracing
from cloudless.observability.secrets import keep_secrets_of
from cloudless.ports import Clock, Executor
from cloudless.settings import AgentSettings


async def no_fault() -> str:
    return ""


class TaskRunner:
    """All tasks of this node. Create it inside the event loop; `recover` first, then `run` in the background.

    `find_fault` returns why nothing can be started now, "" if it can; `journal_fault` why the journal is not written.
    """

    def __init__(
        self,
        settings: AgentSettings,
        limits: AgentLimits,
        executors: Mapping[str, Executor],
        journal: Journal,
        reports: ReportBook,
        clock: Clock,
        find_fault: Callable[[], Awaitable[str]] = no_fault,
    ) -> None:
        self._clock, self._find_fault = clock, find_fault
        self._settings, self._limits = settings, limits
        self._executors = Executors(executors)
        self._journal = journal
        self._reports = reports
        self._tasks: dict[str, LocalTask] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._strays: dict[str, Instance] = {}
        self._listed: set[str] | None = None
        self._watched: set[tuple[str, int]] = set()
        self._unsaved: set[str] = set()
        self._held_up: set[str] = set()
        self._ports: dict[str, dict[str, int]] = {}
        self.journal_fault = ""
        self.steps = StepLog()
        self._sequence_floor = 0
        # Apart by executor: one that hangs must not keep the other's tasks from starting.
        self._starts: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(limits.starts_max))
        self._background: set[asyncio.Task[None]] = set()
        self.probes = Prober(clock, limits.probe_starts_max, self.surroundings_of, self._tell, self._spawn)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leaving = False
        self._ending = False

    # --- what others ask ------------------------------------------------------------------------

    @property
    def tasks(self) -> Mapping[str, LocalTask]:
        return self._tasks

    def count_states(self) -> Counter[TaskState]:
        return Counter(task.state for task in self._tasks.values())

    def find_executor(self, task_id: str) -> Executor | None:
        """Return what runs the task, or None if it is unknown or cannot run here."""
        task = self._tasks.get(task_id)
        return self._executors.find(task) if task else None

    def surroundings_of(self, task: LocalTask) -> Surroundings | None:
        """Return where the task's newest attempt can be asked, None while nothing here runs it."""
        executor = self._executors.find(task)
        request = build_request(task.desired, task.attempt, task.ports, self._settings)
        return Surroundings(own_ip(self._settings), request, executor) if executor else None

    async def recover(
        self,
        tasks: Iterable[LocalTask],
        *,
        incarnation: int,
        awaited: Collection[str] = frozenset(),
        on_known: Callable[[], None] = lambda: None,
    ) -> None:
        """Take over the journal's tasks and what the executors still know of them.

        Tasks of an executor among `awaited` are left as they are until `add_executor`: nobody can tell how they fare.
        `on_known` is called once they are known, before anything is done about them: what it stops is not started.
        Reports of this life count up from `incarnation` (wall milliseconds at least), above everything an earlier
        life may have reported, even if its journal could not be written.
        """
        self._sequence_floor = incarnation
        for task in tasks:
            self._add(task)
            self._report(self._tasks[task.id])
        on_known()
        found = await self._executors.adopt(awaited)
        self._adopt(found, {task.desired.spec.executor.value for task in self._tasks.values()} - set(awaited))
        for task in list(self._tasks.values()):
            if self._executors.is_awaited(task):
                words = f"state unknown: this node has no {task.desired.spec.executor.value} executor yet"
                self._tell(task.id, Noted(task.attempt, words))

    async def add_executor(self, executor: Executor) -> None:
        """Take an executor in that came later, and go on with its tasks. Raises ExecutorError, changing nothing."""
        self._adopt(await self._executors.add(executor), {executor.name})
        if self._listed is not None:
            self._end_strays(self._listed)

    def tell(self, task_id: str, attempt: int, words: str) -> None:
        """Say what an executor has to say of a living attempt ("": nothing any more)."""
        self._tell(task_id, Noted(attempt, words))

    def _adopt(self, instances: Iterable[Instance], executors: Collection[str]) -> None:
        """Tell the tasks of `executors` what was found of them; what belongs to no task is a stray."""
        found: dict[str, Instance] = {}
        for instance in instances:
            if instance.task_id not in found or found[instance.task_id].attempt < instance.attempt:
                found[instance.task_id] = instance
        adopted = 0
        for task in list(self._tasks.values()):
            if task.desired.spec.executor.value in executors:
                own = found.pop(task.id, None)
                adopted += own is not None and own.running
                self._tell(task.id, Adopted(own))
        self._strays.update(found)
        if self._tasks or found:
            logger.info("{} tasks in the journal, {} still running, {} strays", len(self._tasks), adopted, len(found))

    def assign(self, desired: TaskDesired) -> None:
        """Take the coordinator's word about one task."""
        known = self._tasks.get(desired.id)
        if known is None:
            self._accept(desired)
        elif known.desired == desired and known.listed and known.state is not TaskState.ACCEPTED:
            return
        self._tell(desired.id, Assigned(desired))

    def stop(self, task_id: str, reason: str) -> None:
        """Stop a task that no coordinator has told us to stop; it is not started again."""
        self._tell(task_id, StopWanted(reason))

    def unlist(self, task_id: str) -> None:
        """The coordinator no longer lists the task: end it if need be, then forget it."""
        if task_id in self._tasks:
            self._tell(task_id, Unlisted())

    def unlist_others(self, listed: set[str]) -> None:
        """End and forget every task that a complete list does not name."""
        for task_id in sorted(self._tasks.keys() - listed):
            self.unlist(task_id)
        self._listed = listed
        self._end_strays(listed)

    def _end_strays(self, listed: set[str]) -> None:
        for task_id in sorted(self._strays.keys() - listed - self._tasks.keys()):
            self._spawn(self._end_stray(self._strays.pop(task_id)))

    async def run(self) -> None:
        """Repeat failed journal writes until cancelled; raises what went wrong in the background."""
        while True:
            await asyncio.wait({self._failed}, timeout=self._limits.journal_retry_s)
            if self._failed.done():
                self._failed.result()
            for task_id in sorted(self._unsaved):
                async with self._lock(task_id):
                    if task_id in self._tasks:
                        await self._save(self._tasks[task_id])
                    else:
                        self._unsaved.discard(task_id)

    async def end_all(self) -> None:
        """End every task's process and report it, starting none anew; the next life of the agent goes on with them."""
        self._ending = True
        self.probes.close()
        live = [task for task in self._tasks.values() if task.attempt and not is_final(task.state)]
        await asyncio.gather(*(self._end(task) for task in live))
        deadline_s = self._clock.monotonic_s() + self._limits.last_reports_wait_s
        while (self._still_running(live) or self._reports.pending_count) and self._clock.monotonic_s() < deadline_s:
            await asyncio.sleep(self._limits.report_gap_s)

    def _still_running(self, tasks: Iterable[LocalTask]) -> bool:
        """Return whether the end of one of `tasks` has not been taken in yet."""
        states = [self._tasks[task.id].state for task in tasks if task.id in self._tasks]
        return any(state in (TaskState.STARTING, TaskState.RUNNING, TaskState.STOPPING) for state in states)

    def leave(self) -> None:
        """Stop acting; tasks run on."""
        self._leaving = True
        self.probes.close()
        for background in list(self._background):
            background.cancel()

    # --- one task -------------------------------------------------------------------------------

    def _add(self, task: LocalTask) -> None:
        keep_secrets_of(task.desired.spec.env)
        floor = max(task.sequence, self._sequence_floor)
        self._tasks[task.id] = replace(task, sequence=floor)

    def _accept(self, desired: TaskDesired) -> None:
        task = accept(desired, sequence=self._clock.wall_ms())
        stray = self._strays.pop(desired.id, None)
        if stray is not None:
            # Its journal entry was lost, its process was not: go on with that one.
            task = replace(task, state=TaskState.STARTING, attempt=stray.attempt)
        self._add(task)
        if stray is not None:
            self._tell(desired.id, Adopted(stray))

    def _tell(self, task_id: str, event: Event) -> None:
        self._spawn(self._feed(task_id, event))

    async def _feed(self, task_id: str, event: Event) -> None:
        """Make one step of a task; steps of one task never overlap, and keep their order."""
        async with self._lock(task_id):
            before = self._tasks.get(task_id)
            if before is None or self._leaving:
                return
            after, actions = step(before, event, read_clock(self._clock))
            if after == before and not actions:
                return
            if after != before and not await self._save(after) and any(isinstance(a, Start) for a in actions):
                # Nothing is started that a crash would forget: take the step as a start that failed.
                self._held_up.add(task_id)
                fault = StartFailed(after.attempt, StartFault.AGENT, self.journal_fault)
                after, actions = step(after, fault, read_clock(self._clock))
            self._tasks[task_id] = after
            self.steps.note(before, after)
            for action in actions:
                self._carry_out(after, action)
            if self.find_executor(task_id) is not None:
                self.probes.follow(after)

    async def _save(self, task: LocalTask) -> bool:
        try:
            await self._journal.save(task)
        except OSError as error:
            fault = f"the agent's journal cannot be written: {error.strerror or error}"
            if fault != self.journal_fault:
                logger.error("{}", fault)
            self.journal_fault = fault
            self._unsaved.add(task.id)
            return False
        self._unsaved.discard(task.id)
        if self.journal_fault and not self._unsaved:
            logger.info("the journal can be written again")
            self.journal_fault = ""
        return True

    def _carry_out(self, task: LocalTask, action: Action) -> None:
        match action:
            case Report():
                self._report(task)
            case Start() | ScheduleAt() if self._ending:
                pass
            case Start(attempt):
                self._spawn(self._start(task, attempt))
            case Watch(attempt):
                if (task.id, attempt) not in self._watched:
                    self._watched.add((task.id, attempt))
                    self._spawn(self._watch(task, attempt))
            case Stop(attempt, grace_s):
                self._spawn(self._stop(task, attempt, grace_s))
            case ScheduleAt(monotonic_s, attempt):
                self._spawn(self._schedule(task.id, monotonic_s, attempt))
            case Remove():
                self._spawn(self._remove(task))

    def _report(self, task: LocalTask) -> None:
        host = self._settings.advertise_address.rpartition(":")[0]
        self._reports.put(observe(task, node_id=self._settings.node_id, host=host))

    # --- actions --------------------------------------------------------------------------------

    async def _start(self, task: LocalTask, attempt: int) -> None:
        with start_span(task, attempt) as span:
            async with self._starts[task.desired.spec.executor.value]:
                event = await self._try_start(task, attempt)
            note_outcome(span, event)
        await self._feed(task.id, event)

    async def _try_start(self, task: LocalTask, attempt: int) -> Started | StartFailed:
        try:
            if fault := await self._find_hindrance():
                self._held_up.add(task.id)
                raise ExecutorAway(fault)
            executor = self._executors.get(task)
            ports = self._ports[task.id] = self._resolve_ports(task)
            with tracing.child("executor start"):
                return Started(await executor.start(build_request(task.desired, attempt, ports, self._settings)))
        except PortTaken as error:
            return StartFailed(attempt, StartFault.PORT_TAKEN, str(error))
        except ExecutorAway as error:
            return StartFailed(attempt, StartFault.AGENT, str(error))
        except Permanent as error:
            return StartFailed(attempt, StartFault.PERMANENT, str(error))
        except (ExecutorError, OSError) as error:
            return StartFailed(attempt, StartFault.TEMPORARY, str(error))

    async def _find_hindrance(self) -> str:
        """Return why nothing can be started on this node now, "" if it can."""
        if self._unsaved and self.journal_fault:
            return self.journal_fault
        return await self._find_fault()

    def _resolve_ports(self, task: LocalTask) -> dict[str, int]:
        # Also what tasks that are only now being started were given: nobody listens there yet.
        held = (self._ports.get(other.id, other.ports) for other in self._tasks.values() if other.id != task.id)
        others = {number for ports in held for number in ports.values()}
        return resolve_ports(task.desired.spec.ports, task.ports, others, self._limits)

    async def _watch(self, task: LocalTask, attempt: int) -> None:
        try:
            instance = await self._executors.wait(task, attempt, self._limits.wait_retry_s)
        finally:
            self._watched.discard((task.id, attempt))
        await self._feed(task.id, Exited(instance))

    async def _stop(self, task: LocalTask, attempt: int, grace_s: float) -> None:
        try:
            await self._executors.get(task).stop(task.id, attempt, grace_s=grace_s)
        except (ExecutorError, OSError) as error:
            logger.warning("task {task}: cannot be stopped: {}", error, task=task.id)

    async def _end(self, task: LocalTask) -> None:
        """End a task's process because the agent leaves; the task itself stays as it is in the journal."""
        grace_s = task.desired.spec.stop_grace_s
        # Twice: the first may come while the executor is still starting it, and find nothing to end.
        for patience_s in (self._limits.exit_first_wait_s, grace_s + self._limits.exit_margin_s):
            await self._stop(task, task.attempt, grace_s)
            try:
                async with asyncio.timeout(patience_s):
                    await self._executors.wait(task, task.attempt, self._limits.wait_retry_s)
                return
            except TimeoutError:
                continue
        logger.error("task {task}: did not end in time", task=task.id)

    async def _schedule(self, task_id: str, monotonic_s: float, attempt: int) -> None:
        await asyncio.sleep(max(0.0, monotonic_s - self._clock.monotonic_s()))
        # Who has said what it waits for tries no more before that is over: each try would be written and reported.
        while task_id in self._held_up and await self._find_hindrance():
            await asyncio.sleep(self._limits.room_retry_s)
        self._held_up.discard(task_id)
        await self._feed(task_id, BackoffOver(attempt))

    async def _remove(self, task: LocalTask) -> None:
        """Forget an ended task, trying again until its files are gone."""
        while True:
            async with self._lock(task.id):
                current = self._tasks.get(task.id)
                if current is None or current.listed:
                    return
                try:
                    with suppress(Permanent):  # of an executor that this node no longer has: nothing is left
                        await self._executors.get(task).remove(task.id)
                    await self._journal.delete(task.id)
                except (ExecutorError, OSError) as error:
                    logger.warning("task {task}: cannot be removed yet: {}", error, task=task.id)
                else:
                    self._tasks.pop(task.id)
                    self.probes.forget(task.id)
                    self._ports.pop(task.id, None)
                    self._unsaved.discard(task.id)
                    self._reports.forget(task.id)
                    return
            await asyncio.sleep(self._limits.remove_retry_s)

    async def _end_stray(self, stray: Instance) -> None:
        """End a process that neither the journal nor the coordinator knows."""
        logger.warning("task {task}: nobody knows it; ending its process and files", task=stray.task_id)
        for executor in self._executors:
            try:
                await executor.stop(stray.task_id, stray.attempt, grace_s=self._limits.exit_margin_s)
                await executor.wait(stray.task_id, stray.attempt)
                await executor.remove(stray.task_id)
            except (ExecutorError, NotFound, OSError) as error:
                logger.debug("stray {task}: {}", error, task=stray.task_id)

    # --- small things ---------------------------------------------------------------------------

    def _lock(self, task_id: str) -> asyncio.Lock:
        return self._locks.setdefault(task_id, asyncio.Lock())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._failed.done():
            # A bug: `run` raises it and the agent goes down. Its tasks do not.
            self._failed.set_exception(error)
