"""An event loop whose time is virtual: when nothing can run, it jumps to the next deadline.

`asyncio.sleep`, `asyncio.timeout` and everything built on them follow the loop's time, so a test of
minutes takes milliseconds and gives the same order of events every time. Sockets are not waited for:
what runs here must not talk to the world. If nothing is scheduled at all, the test hangs for ever and
says so instead (`Deadlock`).
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

TURN_S = 1e-6
"""What one turn of the loop takes: whoever polls the clock without sleeping sees it move, as in the world."""

START_S = 1_000.0
WALL_START_MS = 1_700_000_000_000


class Deadlock(BaseException):
    """Nothing can run and nothing is scheduled."""


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting, moves its loop's time forward by as much as it was asked to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if timeout is None and not ready:
            raise Deadlock("every task waits for another one")
        self.now_s += TURN_S if ready or not timeout else max(TURN_S, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on virtual time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    def freeze(self, seconds: float) -> None:
        """Let time pass while nothing runs, as when the process is stopped and continued."""
        self._jumping.now_s += seconds


class VirtualClock:
    """The `Clock` port on the running loop's time."""

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        return WALL_START_MS + int((self.monotonic_s() - START_S) * 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtually(work: Coroutine[Any, Any, R]) -> R:
    """Run `work` on a loop of its own with virtual time; return its result."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


def virtually(test: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Make an `async def` test an ordinary one that runs in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return run_virtually(test(*args, **kwargs))

    return run


def freeze(seconds: float) -> None:
    """Stop this process for `seconds` of virtual time: nothing runs, all that fell due is late afterwards."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.freeze(seconds)


async def eventually(condition: Callable[[], bool], *, within_s: float = 30.0) -> float:
    """Wait until the condition holds; return the seconds that took. Fails after `within_s`."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while not condition():
        assert loop.time() - began_s < within_s, f"not within {within_s} s"
        await asyncio.sleep(0.01)
    return loop.time() - began_s


@asynccontextmanager
async def running(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `works` beside the body; cancel them at its end, and raise what one of them died of."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for result in ended:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
