"""The `docker` executor: each attempt is a container of its own, named for it, found again by its labels.

A container's name is its task's id and attempt, so the engine itself sees to it that an attempt is created once,
however often it is asked for. What the engine does not answer is *unknown*, never ended: waiting goes on until it
answers again, and `tell` says so meanwhile. A start that was not answered may still happen; its container is removed as
soon as it is seen, unless the same attempt is asked for again. A later attempt begins only when no earlier one runs.

Containers outlive the agent, and the engine too if it is set to (`live-restore`); without that they end with it, which
is seen when it is back. Nothing is touched that does not carry this agent's label.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from loguru import logger

from cloudless.adapters.docker.endings import Endings
from cloudless.adapters.docker.engine import Engine
from cloudless.adapters.docker.execution import DockerExecution
from cloudless.adapters.docker.faults import Refused, Unanswered, explain_start
from cloudless.adapters.docker.images import Images
from cloudless.adapters.docker.instance import Container, read_container, read_usage
from cloudless.adapters.docker.request import (
    LABEL_AGENT,
    LABEL_ATTEMPT,
    LABEL_TASK,
    build_create,
    build_exec,
    container_name,
)
from cloudless.adapters.docker.stream import ask_stream, json_lines
from cloudless.adapters.docker.tasklogs import ask_logs, read_frames
from cloudless.core.model import Instance
from cloudless.core.usage import Usage
from cloudless.errors import NotFound, Temporary
from cloudless.ports import ExecRequest, LogChunk, LogQuery, StartRequest

ATTEMPTS_KEPT = 2
LIVING = ("running", "paused", "restarting")
DOOMED_MAX = 1000
ENGINE_WAIT_S = 60.0
"""A start waits so long for an engine that is away before it counts as failed."""

Tell = Callable[[str, int, str], None]
"""Told what there is to know of a living attempt (task id, attempt, words); no words: nothing any more."""


class DockerExecutor:
    """Implements `ports.Executor` with the containers of one agent. `run` has to run beside it."""

    name = "docker"

    def __init__(self, engine: Engine, agent_id: str, *, tell: Tell = lambda task_id, attempt, words: None) -> None:
        self._engine = engine
        self._agent_id = agent_id
        self._tell = tell
        self._images = Images(engine)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._starting: dict[str, asyncio.Event] = {}
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._watched: Counter[tuple[str, int]] = Counter()
        self._doomed: dict[str, None] = {}
        self._endings = Endings(engine, self._find, self._changes)
        engine.on_change.append(self._on_engine)

    # --- the port -------------------------------------------------------------------------------

    async def start(self, request: StartRequest) -> Instance:
        """Start an attempt; asked again, return the same one. Raises ExecutorError."""
        name = container_name(request.task_id, request.attempt)
        async with self._lock(request.task_id):
            self._doomed.pop(name, None)
            self._starting[name] = stopped = asyncio.Event()
            try:
                return await self._start(request, name, stopped)
            finally:
                del self._starting[name]

    async def stop(self, task_id: str, attempt: int, *, grace_s: float) -> None:
        """End the attempt within the grace; returns at once. What is only now being fetched is not begun."""
        name = container_name(task_id, attempt)
        if name in self._starting:
            self._starting[name].set()
        self._endings.begin(name, grace_s)

    async def wait(self, task_id: str, attempt: int) -> Instance:
        """Return when the attempt has ended; an engine that does not answer is waited for. Raises NotFound."""
        name, key = container_name(task_id, attempt), (task_id, attempt)
        self._watched[key] += 1
        try:
            with self._changes(name) as changed:
                while True:
                    changed.clear()
                    with suppress(Temporary):
                        container = await self._find(name)
                        if container is None or not container.begun:
                            raise NotFound(f"task {task_id} has no attempt {attempt} here")
                        if not container.instance.running:
                            return container.instance
                        await changed.wait()
                        continue
                    self._say_unknown(key)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._engine.limits.retry_s):
                            await changed.wait()
        finally:
            self._watched[key] -= 1
            if not self._watched[key]:
                del self._watched[key]

    async def adopt(self) -> tuple[Instance, ...]:
        """Return all attempts that have a container, in order; those that never ran are removed. Raises Temporary."""
        rows = await self._list()
        containers = await asyncio.gather(*(self._find(row["Id"]) for row in rows))
        found = []
        for container in containers:
            if container is None:
                continue
            instance = container.instance
            if container.begun:
                found.append(instance)
            elif container_name(instance.task_id, instance.attempt) not in self._starting:
                await self._remove(container.id)
        return tuple(sorted(found, key=lambda instance: (instance.task_id, instance.attempt)))

    async def remove(self, task_id: str) -> None:
        """Remove an ended task's containers and volumes. Raises Temporary if it still runs or the engine cannot now."""
        async with self._lock(task_id):
            rows = await self._list(task_id)
            if any(row["State"] in LIVING and not self._is_doomed(row) for row in rows):
                raise Temporary(f"task {task_id} still runs")
            for row in rows:
                await self._remove(row["Id"])
            filters = {"label": [f"{LABEL_AGENT}={self._agent_id}", f"{LABEL_TASK}={task_id}"]}
            volumes = await self._engine.call(lambda client: client.volumes(filters=filters))
            for volume in volumes.get("Volumes") or ():
                await self._engine.call(functools.partial(_remove_volume, volume["Name"]))

    async def measure(self, task_ids: Collection[str]) -> Mapping[str, Usage]:
        """Return what the running containers of the tasks use, as the engine counts it."""
        rows = {row["Labels"][LABEL_TASK]: row for row in await self._list() if row.get("State") == "running"}
        wanted = sorted(rows.keys() & set(task_ids))
        found = await asyncio.gather(*(self._measure(rows[task_id]["Id"]) for task_id in wanted))
        return {task_id: usage for task_id, usage in zip(wanted, found, strict=True) if usage is not None}

    async def _measure(self, container_id: str) -> Usage | None:
        try:
            # One look: without `one_shot` the engine waits a second for another one.
            document = await self._engine.call(
                lambda client: client.stats(container_id, decode=False, stream=False, one_shot=True)
            )
        except Refused as refused:
            if refused.status in (404, 409):  # gone meanwhile
                return None
            raise
        return read_usage(document)

    async def read_logs(self, task_id: str, query: LogQuery) -> AsyncGenerator[LogChunk, None]:
        """Yield the newest attempt's output, both streams in the order written; followed, go on with later attempts.

        Raises NotFound.
        """
        number = 0
        while (row := await self._newest(task_id, number)) is not None:
            number = int(row["Labels"][LABEL_ATTEMPT])
            async with aclosing(self._read(row["Id"], number, query)) as chunks:
                async for chunk in chunks:
                    yield chunk
            query = replace(query, tail_lines=-1)
            if not query.follow:
                return
        if number == 0:
            raise NotFound(f"task {task_id} has no output here")

    @asynccontextmanager
    async def exec(self, request: ExecRequest) -> AsyncIterator[DockerExecution]:
        """Run a command inside a living attempt's container, as the container's user."""
        name = container_name(request.attempt.task_id, request.attempt.attempt)
        execution = DockerExecution(self._engine, name, request, build_exec(request))
        try:
            await execution.open()
            yield execution
        finally:
            await execution.close()

    async def run(self) -> None:
        """Watch the engine and its events until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._engine.run())
                group.create_task(self._follow_events())
                group.create_task(self._list_now_and_then())
        finally:
            self.close()

    def close(self) -> None:
        """Let go of all tasks without ending them."""
        self._endings.close()
        with suppress(ValueError):
            self._engine.on_change.remove(self._on_engine)

    # --- starting -------------------------------------------------------------------------------

    async def _start(self, request: StartRequest, name: str, stopped: asyncio.Event) -> Instance:
        await self._until_engine_answers(request, stopped)
        existing = await self._own(name)
        if existing is not None and existing.begun:
            return existing.instance
        document = build_create(request, self._agent_id)
        await self._end_earlier(request)
        await self._fetch_image(request, stopped)
        try:
            if existing is None:
                await self._create(name, document)
            await self._begin(name, document)
            started = await self._own(name)
        except Unanswered:
            self._doom(name)
            raise
        if started is None or not started.begun:
            raise Temporary(f"the container of task {request.task_id} vanished when it had been started")
        return started.instance

    async def _until_engine_answers(self, request: StartRequest, stopped: asyncio.Event) -> None:
        """Wait a while for an engine that is away. It may be away still when this returns."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + ENGINE_WAIT_S
        # Asked, not only remembered: a start that fails costs an attempt.
        while not await self._engine.probe() and loop.time() < deadline_s and not stopped.is_set():
            self._tell(request.task_id, request.attempt, f"waits: {self._engine.fault}")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._engine.limits.retry_s):
                    await stopped.wait()

    async def _fetch_image(self, request: StartRequest, stopped: asyncio.Event) -> None:
        """Have the image at hand, unless the task is stopped meanwhile."""

        def say(words: str) -> None:
            self._tell(request.task_id, request.attempt, words)

        fetching = asyncio.create_task(self._images.ensure(request.spec.image, request.spec.image_pull_policy, say))
        stopping = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({fetching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not fetching.done():
                raise Temporary("stopped while its image was being fetched")
            await fetching
        finally:
            fetching.cancel()
            stopping.cancel()

    async def _create(self, name: str, document: dict[str, Any]) -> None:
        try:
            await self._engine.call(lambda client: client.create_container_from_config(document, name))
        except Refused as refused:
            # Made by an earlier request that got no answer: it is the same attempt.
            if refused.status == 409 and await self._own(name) is not None:
                return
            raise explain_start(refused, 0, _command(document)) from refused

    async def _begin(self, name: str, document: dict[str, Any]) -> None:
        try:
            await self._engine.call(lambda client: client.start(name))
        except Refused as refused:
            exit_code = await self._exit_code(name)
            await self._remove(name)
            raise explain_start(refused, exit_code, _command(document)) from refused

    async def _exit_code(self, name: str) -> int:
        document = await self._inspect(name) or {}
        return int((document.get("State") or {}).get("ExitCode") or 0)

    async def _end_earlier(self, request: StartRequest) -> None:
        """Make sure that no earlier attempt runs, and keep the newest ones' output only.

        Raises Temporary if there is a later attempt: this one was overtaken while it waited.
        """
        rows = await self._list(request.task_id)
        if any(int(row["Labels"][LABEL_ATTEMPT]) > request.attempt for row in rows):
            raise Temporary(f"task {request.task_id} has a later attempt than {request.attempt}")
        for row in rows:
            attempt = int(row["Labels"][LABEL_ATTEMPT])
            lives = row["State"] not in ("exited", "dead")
            if attempt < request.attempt and (lives or attempt <= request.attempt - ATTEMPTS_KEPT):
                await self._remove(row["Id"])

    def _doom(self, name: str) -> None:
        """Have the container removed when it is seen: its start was given up, but may still happen."""
        self._doomed[name] = None
        while len(self._doomed) > DOOMED_MAX:
            del self._doomed[next(iter(self._doomed))]

    # --- what the engine has --------------------------------------------------------------------

    async def _inspect(self, name: str) -> dict[str, Any] | None:
        try:
            document: dict[str, Any] = await self._engine.call(lambda client: client.inspect_container(name))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return document

    async def _find(self, name: str) -> Container | None:
        """Return this agent's container by name or id, None if there is none. Raises Unanswered or Refused."""
        container = read_container(await self._inspect(name) or {}, time.time_ns() // 1_000_000)
        return container if container is not None and container.owner == self._agent_id else None

    async def _own(self, name: str) -> Container | None:
        """Return this agent's container by name. Raises Temporary if it is somebody else's."""
        document = await self._inspect(name)
        if document is None:
            return None
        container = read_container(document, time.time_ns() // 1_000_000)
        if container is None or container.owner != self._agent_id:
            raise Temporary(f"the container {name} is not this agent's", hint=f"docker rm -f {name}")
        return container

    async def _list(self, task_id: str = "") -> list[dict[str, Any]]:
        labels = [f"{LABEL_AGENT}={self._agent_id}", *([f"{LABEL_TASK}={task_id}"] if task_id else [])]
        found: list[dict[str, Any]] = await self._engine.call(
            lambda client: client.containers(all=True, filters={"label": labels})
        )
        return [row for row in found if LABEL_TASK in row["Labels"] and row["Labels"].get(LABEL_ATTEMPT, "").isdigit()]

    async def _remove(self, name: str) -> None:
        """Remove a container with its anonymous volumes, running or not. Raises Unanswered or Refused."""
        try:
            await self._engine.call(lambda client: client.remove_container(name, v=True, force=True))
        except Refused as refused:
            # Gone, or being removed already.
            if refused.status not in (404, 409):
                raise

    async def _newest(self, task_id: str, after: int) -> dict[str, Any] | None:
        container_name(task_id, 1)
        rows = [row for row in await self._list(task_id) if int(row["Labels"][LABEL_ATTEMPT]) > after]
        return max(rows, key=lambda row: int(row["Labels"][LABEL_ATTEMPT]), default=None)

    async def _read(self, container_id: str, attempt: int, query: LogQuery) -> AsyncGenerator[LogChunk, None]:
        try:
            async with self._engine.stream(
                lambda client: ask_logs(client, container_id, query),
                functools.partial(read_frames, attempt=attempt, timestamps=query.timestamps),
            ) as chunks:
                async for chunk in chunks:
                    yield chunk
        except Refused as refused:
            if refused.status != 404:
                raise

    # --- what changes ---------------------------------------------------------------------------

    @contextmanager
    def _changes(self, name: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever the container may have changed."""
        event = asyncio.Event()
        waiting = self._waiters.setdefault(name, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting and self._waiters.get(name) is waiting:
                del self._waiters[name]

    def _wake(self, name: str) -> None:
        for event in self._waiters.get(name, ()):
            event.set()

    def _on_engine(self) -> None:
        """The engine has come or gone: say what that means for each living task, and look again at all of them."""
        fault = self._engine.fault
        if fault:
            logger.warning("{}: the state of {} tasks is unknown", fault, len(self._watched))
        else:
            logger.info("the Docker engine at {} answers", self._engine.host)
        for key in self._watched:
            self._say_unknown(key)
        for name in list(self._waiters):
            self._wake(name)

    def _say_unknown(self, key: tuple[str, int]) -> None:
        fault = self._engine.fault
        self._tell(*key, f"state unknown: {fault}" if fault else "")

    async def _follow_events(self) -> None:
        """Wake whoever waits for a container that has an event; after each gap everything is listed."""
        limits = self._engine.limits
        label = f"{LABEL_AGENT}={self._agent_id}"
        filters = json.dumps({"type": ["container"], "event": ["die", "destroy", "start"], "label": [label]})
        while True:
            since_s = int(time.time() - limits.follow_margin_s)
            with suppress(Temporary):
                ask = functools.partial(_ask_events, {"since": since_s, "filters": filters})
                async with self._engine.stream(ask, json_lines) as events:
                    await self._look_at_all()
                    async for event in events:
                        self._wake(str((event.get("Actor") or {}).get("Attributes", {}).get("name", "")))
                self._engine.doubt()
            await asyncio.sleep(limits.retry_s)

    async def _list_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._engine.limits.list_period_s)
            with suppress(Temporary):
                await self._look_at_all()

    async def _look_at_all(self) -> None:
        """List all containers: wake who waits for one that does not run, remove those whose start was given up."""
        rows = await self._list()
        running = {name for row in rows if row["State"] == "running" for name in _names(row)}
        for name in [name for name in self._waiters if name not in running]:
            self._wake(name)
        for row in rows:
            if self._is_doomed(row) and not self._starting.keys() & _names(row):
                logger.warning("container {}: its start was given up, yet it happened; removing it", row["Id"][:12])
                await self._remove(row["Id"])

    def _is_doomed(self, row: dict[str, Any]) -> bool:
        return any(name in self._doomed for name in _names(row))

    def _lock(self, task_id: str) -> asyncio.Lock:
        return self._locks.setdefault(task_id, asyncio.Lock())


def _ask_events(params: dict[str, object], client: Any) -> Any:
    return ask_stream(client, "GET", "/events", params=params)


def _remove_volume(name: str, client: Any) -> None:
    client.remove_volume(name)


def _names(row: dict[str, Any]) -> list[str]:
    return [name.removeprefix("/") for name in row.get("Names") or ()]


def _command(document: dict[str, Any]) -> str:
    return str((document.get("Entrypoint") or document.get("Cmd") or [""])[0])
