"""An executor without processes: passes the same contract suite as the real ones.

`FakeMachine` is what outlives an agent: its attempts and their output. `FakeExecutor` is one agent life's
view of it. Tasks speak a small language in place of a program:

    run                  runs until it is stopped
    stubborn             the same, but ignores the polite signal
    exit CODE            ends by itself at once
    print TEXT COUNT     writes that many lines, then ends with 0
    eat MB               takes that much memory and runs; more than its limit is its end

Anything else is a command that is not found. `refuse` makes the next starts fail; `end` ends an attempt.
Commands beside a task have a language too: `exit CODE`, `say TEXT` (on both streams), `variable NAME`, `echo` (its
input), `hang`. `executions` counts those under way.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from cloudless.adapters.system import SystemClock
from cloudless.core.model import Instance
from cloudless.core.task_environment import TASK_ID_VARIABLE
from cloudless.core.usage import Usage
from cloudless.errors import ExecutorError, NotFound, Permanent, Temporary
from cloudless.ports import Clock, ExecRequest, LogChunk, LogQuery, StartRequest, TerminalSize

FAKE_MEMORY_BYTES = 8 * 1024**2
"""What each running attempt uses, with a whole core."""


@dataclass(slots=True)
class _Attempt:
    instance: Instance
    stubborn: bool
    started_s: float
    output: list[tuple[bytes, int]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    grown: asyncio.Event = field(default_factory=asyncio.Event)


class FakeMachine:
    """Attempts by task id and number; survives its executors. `starts` counts commands really begun."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.attempts: dict[tuple[str, int], _Attempt] = {}
        self.starts = 0
        self.executions = 0
        self.refuse: list[ExecutorError] = []

    def end(self, task_id: str, attempt: int, *, exit_code: int = 0, signal_number: int = 0, message: str = "") -> None:
        """End an attempt, as if it had by itself."""
        found = self.attempts[task_id, attempt]
        if found.instance.running:
            found.instance = replace(
                found.instance,
                running=False,
                pid=0,
                exit_code=-1 if signal_number else exit_code,
                signal=signal_number,
                message=message,
                finished_at_ms=self.clock.wall_ms(),
                ran_s=self.clock.monotonic_s() - found.started_s,
            )
            found.ended.set()
            found.grown.set()

    def write(self, task_id: str, attempt: int, data: bytes) -> None:
        """Let an attempt write to its stdout."""
        found = self.attempts[task_id, attempt]
        found.output.append((data, self.clock.wall_ms()))
        found.grown.set()


class FakeExecutor:
    """Implements `ports.Executor` on a FakeMachine."""

    name = "process"

    def __init__(self, machine: FakeMachine | None = None) -> None:
        self.machine = machine or FakeMachine()
        self._graces: list[asyncio.TimerHandle] = []

    async def start(self, request: StartRequest) -> Instance:
        key = (request.task_id, request.attempt)
        existing = self.machine.attempts.get(key)
        if existing is not None:
            return existing.instance
        if self.machine.refuse:
            raise self.machine.refuse.pop(0)
        words = (*request.spec.command, *request.spec.args)
        if not words or words[0] not in ("run", "stubborn", "exit", "print", "eat"):
            raise Permanent(f"command not found: {words[0] if words else '(none)'}")
        self._begin(request, words)
        return self.machine.attempts[key].instance

    async def stop(self, task_id: str, attempt: int, *, grace_s: float) -> None:
        found = self.machine.attempts.get((task_id, attempt))
        if found is None or not found.instance.running:
            return
        if not found.stubborn:
            self.machine.end(task_id, attempt, signal_number=signal.SIGTERM)
            return
        loop = asyncio.get_running_loop()
        kill = loop.call_later(grace_s, self._kill, task_id, attempt)
        self._graces.append(kill)

    def _kill(self, task_id: str, attempt: int) -> None:
        if (task_id, attempt) in self.machine.attempts:  # it may have ended by itself and be forgotten
            self.machine.end(task_id, attempt, signal_number=signal.SIGKILL)

    async def wait(self, task_id: str, attempt: int) -> Instance:
        found = self._find(task_id, attempt)
        await found.ended.wait()
        return found.instance

    async def adopt(self) -> tuple[Instance, ...]:
        return tuple(attempt.instance for _, attempt in sorted(self.machine.attempts.items()))

    async def remove(self, task_id: str) -> None:
        keys = [key for key in self.machine.attempts if key[0] == task_id]
        if any(self.machine.attempts[key].instance.running for key in keys):
            raise Temporary(f"task {task_id} still runs")
        for key in keys:
            del self.machine.attempts[key]

    async def measure(self, task_ids: Collection[str]) -> Mapping[str, Usage]:
        now_s = self.machine.clock.monotonic_s()
        return {
            task_id: Usage(now_s - attempt.started_s, FAKE_MEMORY_BYTES)
            for (task_id, _), attempt in sorted(self.machine.attempts.items())
            if task_id in task_ids and attempt.instance.running
        }

    async def read_logs(self, task_id: str, query: LogQuery) -> AsyncGenerator[LogChunk, None]:
        numbers = [number for known, number in self.machine.attempts if known == task_id]
        if not numbers:
            raise NotFound(f"task {task_id} has no output here")
        number = max(numbers)
        found = self._find(task_id, number)
        read = len(found.output)
        for line, at_ms in _last_lines(found.output, query):
            yield LogChunk("stdout", line, number, at_ms if query.timestamps else 0)
        while query.follow:
            found.grown.clear()
            if read < len(found.output):
                data, at_ms = found.output[read]
                read += 1
                yield LogChunk("stdout", data, number, at_ms if query.timestamps else 0)
            elif not found.instance.running:
                return
            else:
                await found.grown.wait()

    @asynccontextmanager
    async def exec(self, request: ExecRequest) -> AsyncIterator[FakeExecution]:
        found = self._find(request.attempt.task_id, request.attempt.attempt)
        if not found.instance.running:
            raise NotFound(f"attempt {request.attempt.attempt} of task {request.attempt.task_id} does not run")
        self.machine.executions += 1
        try:
            yield FakeExecution(request)
        finally:
            self.machine.executions -= 1

    def close(self) -> None:
        for kill in self._graces:
            kill.cancel()

    def _find(self, task_id: str, attempt: int) -> _Attempt:
        found = self.machine.attempts.get((task_id, attempt))
        if found is None:
            raise NotFound(f"task {task_id} has no attempt {attempt} here")
        return found

    def _begin(self, request: StartRequest, words: tuple[str, ...]) -> None:
        machine = self.machine
        machine.starts += 1
        instance = Instance(
            task_id=request.task_id,
            attempt=request.attempt,
            running=True,
            pid=1000 + machine.starts,
            started_at_ms=machine.clock.wall_ms(),
            ports=dict(request.ports),
        )
        key = (request.task_id, request.attempt)
        machine.attempts[key] = _Attempt(instance, words[0] == "stubborn", machine.clock.monotonic_s())
        if words[0] == "exit":
            machine.end(*key, exit_code=int(words[1]))
        limit_mb = request.spec.limits.memory_mb
        if words[0] == "eat" and 0 < limit_mb < int(words[1]):
            machine.end(*key, signal_number=signal.SIGKILL, message=f"killed: out of memory (limit {limit_mb} MB)")
        if words[0] == "print":
            machine.write(*key, b"".join(f"{words[1]} {n}\n".encode() for n in range(int(words[2]))))
            machine.end(*key)


class FakeExecution:
    """Implements `ports.Execution`."""

    def __init__(self, request: ExecRequest) -> None:
        self._request = request
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._code = 0

    async def output(self) -> AsyncGenerator[LogChunk, None]:
        word, *rest = self._request.command
        match word:
            case "exit":
                self._code = int(rest[0])
            case "say":
                yield LogChunk("stdout", f"{rest[0]}\n".encode())
                yield LogChunk("stdout" if self._request.terminal else "stderr", f"{rest[0]}\n".encode())
            case "variable":
                variables = {TASK_ID_VARIABLE: self._request.attempt.task_id, **self._request.attempt.env}
                yield LogChunk("stdout", variables.get(rest[0], "").encode() + b"\n")
            case "echo":
                while self._request.stdin and (data := await self._input.get()):
                    yield LogChunk("stdout", data)
            case "hang":
                await asyncio.Event().wait()
            case _:
                self._code = 127
                yield LogChunk("stderr", f"cannot run {word}: command not found\n".encode())

    async def write(self, data: bytes) -> None:
        self._input.put_nowait(data)

    async def resize(self, size: TerminalSize) -> None:
        return

    async def wait(self) -> int:
        return self._code


def _last_lines(output: list[tuple[bytes, int]], query: LogQuery) -> list[tuple[bytes, int]]:
    """Return the lines asked for, each with when it was written; a line is written at once here."""
    lines = [(line, at_ms) for data, at_ms in output for line in data.splitlines(keepends=True)]
    kept = lines if query.tail_lines < 0 else lines[len(lines) - min(query.tail_lines, len(lines)) :]
    return [(line, at_ms) for line, at_ms in kept if at_ms >= query.since_ms]
