"""The `process` executor: tasks as plain processes of this machine, each under a shim that outlives the agent.

A start is exclusive by the creation of the attempt's directory, and a living attempt is told by the lock its
shim holds, so asking twice, or crashing anywhere, starts a command at most once. Processes are waited for and
signalled through pidfds after their start time and boot were compared: a stranger that was given the same pid
is neither adopted nor signalled.

A task's processes are together in a control group, where the node permits that (`cgroups`), and confined as its
security context says (`confinement`). What the node cannot do is refused, never left out.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import json
import marshal
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from cloudless.adapters.subprocess import procfs
from cloudless.adapters.subprocess.attempt import Attempt, end_leftovers
from cloudless.adapters.subprocess.cgroups import CONTROLLERS, ControlGroups, look_for_hierarchies
from cloudless.adapters.subprocess.command import build_argv, build_environment, find_executable
from cloudless.adapters.subprocess.confinement import build_confinement, find_powers, give_directories
from cloudless.adapters.subprocess.exec_order import build_exec_order
from cloudless.adapters.subprocess.execution import ProcessExecution, Streams
from cloudless.adapters.subprocess.launches import Launches
from cloudless.adapters.subprocess.pidfds import open_command, open_shim, send, until_readable
from cloudless.adapters.subprocess.shim_code import BOOT, shim_code
from cloudless.adapters.subprocess.tasklogs import LogReader
from cloudless.core.model import Instance
from cloudless.core.usage import UNKNOWN, Usage
from cloudless.errors import NotFound, Permanent, Temporary
from cloudless.ports import ExecRequest, LogChunk, LogQuery, StartRequest
from cloudless.settings import CGROUP_PARENT

LOG_BYTES_MAX = 10 * 1024**2
"""A log file is rotated at this size; one older file is kept."""
START_TIMEOUT_S = 10.0
"""A shim that has not said a word by then is killed."""
FORCE_MARGIN_S = 10.0
"""A shim that lives this long after the grace is over is killed itself."""
LAST_MOMENT_S = 1.0
THREADS_MAX = 4
EXEC_THREADS_MAX = 2
FOLLOW_POLL_S = 0.2
ATTEMPTS_KEPT = 2

_TASK_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_HINTS = {
    "mounts": "privateTmp, readOnlyRoot and volumes need an agent with CAP_SYS_ADMIN; readOnlyRoot needs Linux 5.12",
    "rlimits": "a limit may be above what the agent itself has",
    "runAsUser": "only an agent that is root can run tasks as others",
    "runAsGroup": "only an agent that is root can run tasks as others",
    "capabilities": "only an agent that is root can change capabilities",
}

T = TypeVar("T")


class ProcessExecutor:
    """Implements `ports.Executor` under `root` (created, mode 0700). Call `close` when done with it; tasks go on."""

    name = "process"

    def __init__(self, root: Path, *, log_bytes_max: int = LOG_BYTES_MAX, cgroup_parent: str = CGROUP_PARENT) -> None:
        self._root = root.resolve()
        self._log_bytes_max = log_bytes_max
        self._groups = ControlGroups(look_for_hierarchies(), self._root, cgroup_parent)
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="executor")
        # Apart: starts that are slow must not keep probes waiting.
        self._exec_threads = ThreadPoolExecutor(EXEC_THREADS_MAX, thread_name_prefix="exec")
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._shims: dict[int, subprocess.Popen[bytes]] = {}
        self._forced: dict[Attempt, asyncio.TimerHandle] = {}
        self._launches = Launches(hashlib.sha256(str(self._root).encode()).hexdigest()[:16])

    @property
    def abilities(self) -> dict[str, str]:
        """Return what of `core.abilities` this executor has: "", or why it does not have it."""
        limiting = {f"limit-{name}": self._groups.missing.get(name, "") for name in CONTROLLERS}
        return {**limiting, **find_powers()}

    async def start(self, request: StartRequest) -> Instance:
        """Start an attempt; asked again, return the same one. Raises Permanent or Temporary."""
        attempt = self._attempt(request.task_id, request.attempt)
        async with self._lock(request.task_id):
            try:
                return await self._run(self._start, attempt, request)
            except OSError as error:
                raise Temporary(f"cannot start in {attempt.path}: {error.strerror or error}") from error

    async def stop(self, task_id: str, attempt: int, *, grace_s: float) -> None:
        """Tell the shim to end the attempt; returns at once, and does nothing if it has ended."""
        place = self._attempt(task_id, attempt)
        if await self._run(self._signal_stop, place, grace_s) and place not in self._forced:
            loop = asyncio.get_running_loop()
            self._forced[place] = loop.call_later(grace_s + FORCE_MARGIN_S, self._force, place)

    async def wait(self, task_id: str, attempt: int) -> Instance:
        """Return when the attempt has ended. Raises NotFound if there was no such attempt."""
        place = self._attempt(task_id, attempt)
        while True:
            instance = await self._run(self._settled, place)
            if instance is None:
                raise NotFound(f"task {task_id} has no attempt {attempt} here")
            if not instance.running:
                self._end_force(place)
                return instance
            await self._until_news(place)

    async def adopt(self) -> tuple[Instance, ...]:
        """Return all attempts that are on disk, in order of task and attempt; those never begun are wiped."""
        return await self._run(self._adopt)

    async def remove(self, task_id: str) -> None:
        """Delete an ended task's files. Raises Temporary if it still runs or the files cannot be moved."""
        async with self._lock(task_id):
            try:
                await self._run(self._remove, self._task_dir(task_id))
            except OSError as error:
                raise Temporary(f"cannot remove the files of task {task_id}: {error.strerror}") from error

    async def measure(self, task_ids: Collection[str]) -> Mapping[str, Usage]:
        """Return what the tasks use: by their control groups, or, without those, summed over their processes."""
        return await self._run(self._measure, sorted(task_ids))

    async def read_logs(self, task_id: str, query: LogQuery) -> AsyncGenerator[LogChunk, None]:
        """Yield the newest attempt's output; when followed, go on with later attempts until none is running.

        Raises NotFound.
        """
        number = 0
        while (place := await self._run(self._newest, task_id, number)) is not None:
            number = place.number
            reader = await self._run(LogReader, place.path, number, query)
            try:
                async with aclosing(self._read(place, reader, query.follow)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            finally:
                reader.close()
            query = replace(query, tail_lines=-1)
            if not query.follow:
                return
        if number == 0:
            raise NotFound(f"task {task_id} has no output here")

    @asynccontextmanager
    async def exec(self, request: ExecRequest) -> AsyncIterator[ProcessExecution]:
        """Run a command beside a living attempt: as its process runs, in its directory and with its environment."""
        attempt = self._attempt(request.attempt.task_id, request.attempt.attempt)
        ask = functools.partial(build_exec_order, attempt, request, self._launches.new_mark())
        order = await asyncio.get_running_loop().run_in_executor(self._exec_threads, ask)
        streams = Streams(stdin=request.stdin, terminal=request.terminal)
        try:
            launch = await self._launches.start(order, streams.given)
            try:
                streams.close_given()
                yield ProcessExecution(launch, streams)
            finally:
                await self._launches.end(launch)
        finally:
            streams.close()

    def close(self) -> None:
        """Let go of all tasks without ending them. Commands beside them are ended."""
        self._launches.close()
        for handle in self._forced.values():
            handle.cancel()
        for threads in (self._threads, self._exec_threads):
            threads.shutdown(wait=False, cancel_futures=True)
        self._groups.close()

    # --- starting -------------------------------------------------------------------------------

    def _start(self, attempt: Attempt, request: StartRequest) -> Instance:
        try:
            lock = attempt.create()
        except FileExistsError:
            existing = self._settled(attempt)
            if existing is not None:
                return existing
            attempt.wipe()
            lock = attempt.create()
        try:
            spec, task_dir = request.spec, attempt.path.parent
            order = self._order(attempt, request, lock)
            give_directories(spec.security_context, spec.volumes, task_dir)
            order["confinement"] = build_confinement(spec.security_context, spec.volumes, task_dir)
            group = self._groups.prepare(attempt.task_id, spec.limits, spec.requests)
            order |= {"entrances": group.entrances, "deaths_file": group.deaths_file}
            self._spawn(attempt, order, lock)
        except BaseException:
            attempt.wipe()
            raise
        finally:
            os.close(lock)
        self._forget_older(attempt)
        started = attempt.find()
        if started is None:
            raise Temporary(f"the supervisor of task {attempt.task_id} left no state")
        return started

    def _order(self, attempt: Attempt, request: StartRequest, lock: int) -> dict[str, Any]:
        task_dir = attempt.path.parent
        argv = build_argv(request)
        environment = build_environment(request, task_dir)
        identity = {"task_id": attempt.task_id, "attempt": attempt.number, "ports": dict(request.ports)}
        return {
            "directory": str(attempt.path),
            "work": str(task_dir / "home"),
            "executable": find_executable(argv[0], path=environment["PATH"], work=task_dir / "home"),
            "argv": argv,
            "env": environment,
            "grace_s": float(request.spec.stop_grace_s),
            "memory_limit_mb": request.spec.limits.memory_mb,
            "log_bytes_max": self._log_bytes_max,
            "lock": lock,
            "identity": json.dumps(identity)[1:-1],
        }

    def _spawn(self, attempt: Attempt, order: dict[str, Any], lock: int) -> None:
        """Spawn the shim and wait for its word. Raises Permanent, Temporary or OSError."""
        self._reap()
        memory = os.memfd_create("order", os.MFD_CLOEXEC)
        with os.fdopen(memory, "w+b") as orders, (attempt.path / "shim.log").open("wb") as log:
            orders.write(marshal.dumps((shim_code(), order)))
            orders.flush()
            orders.seek(0)
            shim = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", BOOT, "cloudless-task", f"{attempt.task_id}/{attempt.number}"],
                stdin=orders, stdout=subprocess.PIPE, stderr=log, cwd="/", env={}, close_fds=True,
                pass_fds=(lock,), start_new_session=True,
            )  # fmt: skip
        self._shims[shim.pid] = shim
        assert shim.stdout is not None
        with shim.stdout as pipe:
            poll = select.poll()
            poll.register(pipe, select.POLLIN)
            word = os.read(pipe.fileno(), 256).decode().split() if poll.poll(START_TIMEOUT_S * 1000) else []
        if word[:1] == ["started"]:
            return
        if not word:
            shim.kill()
            shim.wait()
            said = (attempt.path / "shim.log").read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            raise Temporary(f"the supervisor of task {attempt.task_id} did not start: {said or 'no answer'}")
        shim.wait()
        raise _explain(int(word[1]), order["argv"][0], " ".join(word[2:]))

    def _forget_older(self, attempt: Attempt) -> None:
        """Keep the newest attempts' logs only: a task that crashes for ever must not fill the disk."""
        for number in _attempt_numbers(attempt.path.parent):
            if number <= attempt.number - ATTEMPTS_KEPT:
                shutil.rmtree(attempt.path.parent / str(number), ignore_errors=True)

    # --- finding, ending ------------------------------------------------------------------------

    def _settled(self, attempt: Attempt) -> Instance | None:
        """Return the attempt; if its shim is just starting, wait until it has said who it is."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            found = attempt.find()
            if found is not None or not attempt.is_held() or time.monotonic() > deadline_s:
                return found
            select.select([], [], [], 0.01)

    def _adopt(self) -> tuple[Instance, ...]:
        found = []
        for task_dir in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            if task_dir.name.startswith(".removed-"):
                shutil.rmtree(task_dir, ignore_errors=True)
                continue
            for number in _attempt_numbers(task_dir):
                attempt = self._attempt(task_dir.name, number)
                instance = self._settled(attempt)
                if instance is not None:
                    found.append(instance)
                elif not attempt.is_held():
                    attempt.wipe()
        self._groups.collect(frozenset(os.listdir(self._root)) if self._root.is_dir() else ())
        return tuple(found)

    def _signal_stop(self, attempt: Attempt, grace_s: float) -> bool:
        state = attempt.read_state()
        if state is None or not state.lives():
            return False
        with suppress(OSError):
            # Without it the shim takes the grace it was started with.
            (attempt.path / "grace").write_text(f"{grace_s:.3f}", encoding="ascii")
        return send(state, signal.SIGTERM)

    def _force(self, attempt: Attempt) -> None:
        self._forced.pop(attempt, None)
        self._threads.submit(self._kill_shim, attempt)

    def _kill_shim(self, attempt: Attempt) -> None:
        state = attempt.read_state()
        if state is not None and send(state, signal.SIGKILL):
            self._groups.find(attempt.task_id).end()
            end_leftovers(attempt.task_id, state)

    def _end_force(self, attempt: Attempt) -> None:
        handle = self._forced.pop(attempt, None)
        if handle:
            handle.cancel()

    async def _until_news(self, attempt: Attempt) -> None:
        """Return when the shim has ended, and a moment after its command has: the shim may be held up by the disk."""
        state = await self._run(attempt.read_state)
        if state is None:
            return
        shim, command = open_shim(state), open_command(state)
        try:
            if shim is None:
                return
            if command is not None:
                await until_readable(shim, command)
            await until_readable(shim, timeout_s=LAST_MOMENT_S)
        finally:
            for pidfd in (shim, command):
                if pidfd is not None:
                    os.close(pidfd)
        self._reap()

    def _reap(self) -> None:
        """Collect shims that are our own children and have ended."""
        for pid, shim in list(self._shims.items()):
            if shim.poll() is not None:
                self._shims.pop(pid, None)

    def _remove(self, task_dir: Path) -> None:
        if not task_dir.is_dir():
            return
        if not all(self._is_over(self._attempt(task_dir.name, n)) for n in _attempt_numbers(task_dir)):
            raise Temporary(f"task {task_dir.name} still runs")
        self._groups.find(task_dir.name).remove()
        # Renamed first: a crash in the middle of deleting must not leave something that looks like a task.
        doomed = task_dir.with_name(f".removed-{task_dir.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        task_dir.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _is_over(self, attempt: Attempt) -> bool:
        """Return whether nobody holds the attempt; a shim that has written the end is given a moment to go."""
        deadline_s = time.monotonic() + LAST_MOMENT_S
        while attempt.is_held():
            found = attempt.find()
            if found is None or found.running or time.monotonic() > deadline_s:
                return False
            select.select([], [], [], 0.01)
        return True

    def _measure(self, task_ids: Sequence[str]) -> dict[str, Usage]:
        found: dict[str, Usage] = {}
        supervised: dict[str, int] = {}
        for task_id in task_ids:
            place = self._newest(task_id, 0)
            instance, state = (place.find(), place.read_state()) if place is not None else (None, None)
            if instance is None or state is None or not instance.running:
                continue
            usage = self._groups.find(task_id).read_usage()
            if UNKNOWN in (usage.cpu_s, usage.memory_bytes):
                supervised[task_id] = state.shim_pid
            found[task_id] = usage
        if supervised:
            summed = procfs.sum_usage(supervised.values())
            found |= {task_id: summed[pid] for task_id, pid in supervised.items()}
        return found

    # --- output ---------------------------------------------------------------------------------

    def _newest(self, task_id: str, after: int) -> Attempt | None:
        task_dir = self._task_dir(task_id)
        numbers = [number for number in _attempt_numbers(task_dir) if number > after]
        return self._attempt(task_id, numbers[-1]) if numbers else None

    async def _read(self, attempt: Attempt, reader: LogReader, follow: bool) -> AsyncGenerator[LogChunk, None]:
        while True:
            # Asked before reading: what is written before the end is read after it.
            running = follow and await self._run(attempt.is_held)
            chunks = await self._run(reader.read)
            while chunks:
                for chunk in chunks:
                    yield chunk
                chunks = await self._run(reader.read)
            if not running:
                return
            await asyncio.sleep(FOLLOW_POLL_S)

    # --- small things ---------------------------------------------------------------------------

    def _task_dir(self, task_id: str) -> Path:
        if not _TASK_ID.fullmatch(task_id):
            raise Permanent(f"{task_id!r} cannot be a task's id")
        return self._root / task_id

    def _attempt(self, task_id: str, number: int) -> Attempt:
        return Attempt(self._task_dir(task_id) / str(number), task_id, number, self._groups.find)

    def _lock(self, task_id: str) -> asyncio.Lock:
        return self._locks.setdefault(task_id, asyncio.Lock())

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(function, *arguments))


def _attempt_numbers(task_dir: Path) -> list[int]:
    try:
        return sorted(int(entry) for entry in os.listdir(task_dir) if entry.isdigit())
    except OSError:
        return []


def _explain(number: int, command: str, stage: str) -> Permanent | Temporary:
    """Return what a failed start means; `stage` names what was being done, "" for running the command."""
    text = os.strerror(number)
    if stage and number in (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS):
        return Permanent(f"this node cannot set {stage}: {text}", hint=_HINTS.get(stage, ""))
    if stage:
        return Temporary(f"cannot set {stage}: {text}")
    if number in (errno.ENOENT, errno.ENOTDIR):
        return Permanent(f"cannot run {command}: the interpreter it names is missing, or it vanished")
    if number in (errno.EACCES, errno.ENOEXEC, errno.EPERM, errno.E2BIG, errno.ELOOP):
        return Permanent(f"cannot run {command}: {text}")
    return Temporary(f"cannot run {command}: {text}")
