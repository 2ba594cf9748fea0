"""The agent's memory on disk: its tasks, and the newest term and revision it was shown.

One file per task and one for the agent itself (`head`), each replaced by rename after a sync, so that a kill
at any point leaves the old content or the new. Every file carries a checksum; one that does not hold, or does
not parse, is moved to `quarantine/` and reported, and the rest is read: a lost entry costs one task's memory
(the executor and the coordinator still know it), never the agent.

A disk that cannot be written is the caller's to handle: every write raises OSError then.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from loguru import logger

from cloudless.core.autonomy import LastWord
from cloudless.core.discovery.learned import Known
from cloudless.core.localtask import LocalTask
from cloudless.core.model import TaskDesired, TaskObserved
from cloudless.core.taskflow import observe
from cloudless.rpc.codec import Malformed, from_message, to_message
from cloudless.rpc.v1 import agent_pb2, objects_pb2

FORMAT = 1
_MAGIC = b"CLJ1"

T = TypeVar("T")
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The agent's own part. `incarnation` grows with every start; `coordinators` is what the cluster said of them."""

    cluster_id: str = ""
    term_seen: int = 0
    revision_seen: int = 0
    incarnation: int = 0
    coordinators: tuple[Known, ...] = ()
    agent_id: str = ""
    last_word: LastWord = field(default_factory=LastWord)


class Journal:
    """Files under `<data>`; the async methods work in threads of their own. Call `close` at the end."""

    def __init__(self, data_dir: Path, *, threads_max: int) -> None:
        self._data_dir = data_dir
        self._tasks_dir = data_dir / "journal"
        self._threads = ThreadPoolExecutor(threads_max, thread_name_prefix="journal")
        self._head_lock = asyncio.Lock()

    async def load(self) -> tuple[Head, tuple[LocalTask, ...]]:
        """Return what survived; what did not is quarantined and logged."""
        return await self._run(self._load)

    async def save(self, task: LocalTask) -> None:
        """Write one task; it is on disk on return. Raises OSError. Not twice at once for one task."""
        entry = _to_entry(task)
        await self._run(_write, self._tasks_dir / task.id, entry)

    async def delete(self, task_id: str) -> None:
        """Forget one task; an unknown one is no error. Raises OSError."""
        await self._run(functools.partial((self._tasks_dir / task_id).unlink, missing_ok=True))

    async def save_head(self, head: Head) -> None:
        """Write the agent's own part. Raises OSError."""
        entry = agent_pb2.JournalHead(
            format=FORMAT,
            cluster_id=head.cluster_id,
            term_seen=head.term_seen,
            revision_seen=head.revision_seen,
            incarnation=head.incarnation,
            agent_id=head.agent_id,
            heard_s=head.last_word.heard_s,
            heard_boot_id=head.last_word.boot_id,
            coordinators=[
                agent_pb2.LearnedCoordinator(id=one.id, address=one.address, confirmed_ms=one.confirmed_ms)
                for one in head.coordinators
            ],
        )
        async with self._head_lock:
            await self._run(_write, self._data_dir / "head", entry)

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    def _load(self) -> tuple[Head, tuple[LocalTask, ...]]:
        with suppress(OSError):
            self._tasks_dir.mkdir(mode=0o700, exist_ok=True)
        tasks = []
        for path in sorted(self._tasks_dir.iterdir()) if self._tasks_dir.is_dir() else ():
            if path.name.startswith("."):
                # The rest of a write that was cut off.
                with suppress(OSError):
                    path.unlink()
                continue
            task = self._read_or_quarantine(path, lambda path: _from_entry(path.name, _read(path, _ENTRY)))
            if task is not None:
                tasks.append(task)
        head = self._read_or_quarantine(self._data_dir / "head", _read_head)
        return head or Head(), tuple(tasks)

    def _read_or_quarantine(self, path: Path, read: Callable[[Path], T]) -> T | None:
        try:
            return read(path)
        except FileNotFoundError:
            return None
        except (OSError, Malformed) as error:
            logger.error("journal: {} cannot be read and is set aside: {}", path.name, error)
            with suppress(OSError):
                quarantine = self._data_dir / "quarantine"
                quarantine.mkdir(mode=0o700, exist_ok=True)
                path.replace(quarantine / path.name)
            return None

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(function, *arguments))


_ENTRY = agent_pb2.JournaledTask


def _read_head(path: Path) -> Head:
    entry = _read(path, agent_pb2.JournalHead)
    return Head(
        cluster_id=entry.cluster_id,
        term_seen=entry.term_seen,
        revision_seen=entry.revision_seen,
        incarnation=entry.incarnation,
        coordinators=_read_learned(entry),
        agent_id=entry.agent_id,
        last_word=LastWord(entry.heard_s, entry.heard_boot_id),
    )


def _read_learned(entry: agent_pb2.JournalHead) -> tuple[Known, ...]:
    """Return the learned coordinators; those of an earlier version's head, which has no ids, count as just learned."""
    if entry.coordinators:
        return tuple(Known(one.id, one.address, one.confirmed_ms) for one in entry.coordinators)
    now_ms = time.time_ns() // 1_000_000
    return tuple(Known(address, address, now_ms) for address in entry.coordinator_addresses)


def _to_entry(task: LocalTask) -> agent_pb2.JournaledTask:
    return agent_pb2.JournaledTask(
        format=FORMAT,
        desired=to_message(task.desired, objects_pb2.TaskDesired),
        observed=to_message(observe(task, node_id=task.desired.node_id, host=""), objects_pb2.TaskObserved),
        retries=task.retries,
        listed=task.listed,
        backoff_until_s=task.backoff_until_s,
        ailing=task.ailing,
        unready=task.unready,
    )


def _from_entry(name: str, entry: agent_pb2.JournaledTask) -> LocalTask:
    desired = from_message(entry.desired, TaskDesired)
    observed = from_message(entry.observed, TaskObserved)
    if desired.id != name or observed.task_id != name:
        raise Malformed(f"names task {desired.id!r}")
    return LocalTask(
        desired=desired,
        state=observed.state,
        attempt=observed.attempt,
        retries=entry.retries,
        sequence=observed.sequence,
        listed=entry.listed,
        ports=observed.ports,
        backoff_until_s=entry.backoff_until_s,
        pid=observed.pid,
        exit_code=observed.exit_code,
        signal=observed.signal,
        message=observed.message,
        started_at_ms=observed.started_at_ms,
        finished_at_ms=observed.finished_at_ms,
        ready=observed.ready,
        ready_since_ms=observed.ready_since_ms,
        probe_failures=observed.probe_failures,
        ailing=entry.ailing,
        unready=entry.unready,
    )


def _read(path: Path, message_class: type[M]) -> M:
    content = path.read_bytes()
    payload = content[8:]
    if content[:4] != _MAGIC or int.from_bytes(content[4:8], "big") != zlib.crc32(payload):
        raise Malformed("its checksum does not hold")
    message = message_class()
    try:
        message.ParseFromString(payload)
    except (DecodeError, ValueError) as error:
        raise Malformed(str(error)) from error
    if not 1 <= getattr(message, "format", 0) <= FORMAT:
        raise Malformed("it was written by a newer version")
    return message


def _write(path: Path, message: Message) -> None:
    payload = message.SerializeToString()
    content = _MAGIC + zlib.crc32(payload).to_bytes(4, "big") + payload
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
