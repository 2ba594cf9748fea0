"""An event loop of several processes: virtual time, one order of events, and each process can freeze or die.

Every callback belongs to the process whose context it was scheduled in (`PROCESS`). Those of a frozen process
wait until it goes on, those of a dead one are dropped: a crash runs no `finally`. Callbacks scheduled in no
process are the world's: the network, the store, the faults.

Nothing here depends on addresses or on a hash seed: tasks and futures hash by a serial number, so that the sets
asyncio keeps of them have the same order in every run.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from enum import Enum
from typing import Any

TURN_S = 1e-6
"""What one callback takes: whoever polls the clock without sleeping sees it move, as in the world."""

START_S = 1_000.0
CALLBACKS_MAX = 3_000_000
"""Of one run. A run that needs more spins without getting anywhere."""


class Condition(Enum):
    RUNNING = "running"
    FROZEN = "frozen"
    DEAD = "dead"


class Process:
    """One life of a process: its tasks, and whether it runs. A restart is a new one."""

    def __init__(self, name: str, loop: SimLoop) -> None:
        self.name, self._loop = name, loop
        self.condition = Condition.RUNNING
        self.context = copy_context()
        self.context.run(PROCESS.set, self)
        self.deferred: list[Handle] = []
        self.stalls = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = 256

    @property
    def alive(self) -> bool:
        return self.condition is not Condition.DEAD

    @property
    def running(self) -> bool:
        return self.condition is Condition.RUNNING

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """Run `work` as a task of this process, from wherever."""
        return self._loop.create_task(work, name=name or self.name, context=self.context.copy())

    def freeze(self) -> None:
        if self.condition is Condition.RUNNING:
            self.condition = Condition.FROZEN
            self.stalls += 1

    def thaw(self) -> None:
        """Go on: everything that fell due meanwhile happens now, late."""
        if self.condition is Condition.FROZEN:
            self.condition = Condition.RUNNING
            self._loop.resume(self.deferred)
            self.deferred = []

    def kill(self) -> None:
        """End at once: nothing of this process runs any more, not even its clean-up."""
        self.condition = Condition.DEAD
        self.deferred = []

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Hold on to a task: a dead one must not be collected, which would run its `finally`."""
        self._tasks.append(task)
        if len(self._tasks) > self._prune_at:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._prune_at = 256 + 2 * len(self._tasks)

    def silence(self) -> None:
        """Let what is left of it be collected without a word, once the run is over."""
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)


class Handle:
    """A callback to be run; `cancel` makes it nothing."""

    __slots__ = ("args", "callback", "context")

    def __init__(self, callback: Callable[..., Any] | None, args: tuple[Any, ...], context: Context) -> None:
        self.callback, self.args, self.context = callback, args, context

    def cancel(self) -> None:
        self.callback = None
        self.args = ()


class SimTask(asyncio.Task):  # type: ignore[type-arg]
    """A task whose hash is a serial number."""

    serial: int

    def __hash__(self) -> int:
        return self.serial


class SimFuture(asyncio.Future):  # type: ignore[type-arg]
    """A future whose hash is a serial number."""

    serial: int

    def __hash__(self) -> int:
        return self.serial


class Spinning(Exception):
    """The run makes no progress: too many callbacks, or every task waits for another one."""


class SimLoop(asyncio.AbstractEventLoop):
    """The loop of a simulated world. `run` it once."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.callbacks = 0
        self.complaints: list[str] = []
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._serial = 0
        self._world = Context()
        self._closed = False

    # --- what asyncio asks of a loop ---

    def time(self) -> float:
        return self.now_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Any:
        handle = Handle(callback, args, copy_context() if context is None else context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Any:
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Any:
        handle = Handle(callback, args, copy_context() if context is None else context)
        self._serial += 1
        heapq.heappush(self._timers, (when, self._serial, handle))
        return handle

    def create_future(self) -> SimFuture:
        future = SimFuture.__new__(SimFuture)
        self._serial += 1
        future.serial = self._serial
        future.__init__(loop=self)  # type: ignore[misc]
        return future

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        context = copy_context() if context is None else context
        task = SimTask.__new__(SimTask)
        self._serial += 1
        task.serial = self._serial
        task.__init__(coro, loop=self, name=name or "", context=context)  # type: ignore[misc]
        process = context.get(PROCESS)
        if process is not None:
            process.keep(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    # --- the world's own ---

    def world_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Schedule a callback of no process."""
        handle = Handle(callback, args, self._world)
        self._serial += 1
        heapq.heappush(self._timers, (when, self._serial, handle))
        return handle

    def world_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as a task of no process."""
        task: asyncio.Task[Any] = self.create_task(work, context=self._world.copy())
        return task

    def resume(self, handles: list[Handle]) -> None:
        self._ready.extend(handles)

    def run(self, work: Coroutine[Any, Any, Any], until_s: float) -> Any:
        """Run `work` as the world's task and everything else until it is done; return its result.

        Raises Spinning, also if virtual time passes `until_s`.
        """
        hooks = sys.get_asyncgen_hooks()
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(finalizer=self._finish_generator)
        try:
            main = self.world_task(work)
            self._run_until(main, until_s)
            return main.result()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(None)
            self._closed = True

    def _finish_generator(self, generator: Any) -> None:
        if not self._closed:
            self.call_soon(lambda: self.create_task(generator.aclose()))

    def _run_until(self, main: asyncio.Task[Any], until_s: float) -> None:
        ready, timers = self._ready, self._timers
        running = Condition.RUNNING
        while not main.done():
            if not ready:
                if not timers:
                    raise Spinning("every task waits for another one")
                self.now_s = max(self.now_s, timers[0][0])
                if self.now_s > until_s:
                    raise Spinning(f"the run is not over after {until_s - START_S:.0f} s")
            while timers and timers[0][0] <= self.now_s:
                ready.append(heapq.heappop(timers)[2])
            self.callbacks += len(ready)
            if self.callbacks > CALLBACKS_MAX:
                raise Spinning(f"more than {CALLBACKS_MAX} callbacks")
            for _ in range(len(ready)):
                handle = ready.popleft()
                callback = handle.callback
                if callback is None:
                    continue
                process = handle.context.get(PROCESS)
                if process is not None and process.condition is not running:
                    if process.condition is Condition.FROZEN:
                        process.deferred.append(handle)
                    continue
                self.now_s += TURN_S
                try:
                    handle.context.run(callback, *handle.args)
                except Exception as error:
                    self.call_exception_handler({"message": "a callback failed", "exception": error})
