"""Kill a process the moment a certain write is stored: how a crash in the middle of an operation is made.

The write is seen on the watch of another member, so some milliseconds pass in which the process may have gone one
write further; over several rounds every place in the operation is hit.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.core import keys
from cloudless.ports import WatchStream
from tests.faults.rig.load import Load

_OPEN_S = 10.0


class Trap:
    """Counts the revisions that hold a key for which `counts` is true; at the `nth` it kills `pid`.

    Runs on the load's event loop, while the block it opens lasts. `sprung` is set when it has killed.
    """

    def __init__(
        self, load: Load, open_store: Callable[[], EtcdStore], *, nth: int, counts: Callable[[str], bool], pid: int
    ) -> None:
        self._load, self._open_store, self._nth, self._counts, self._pid = load, open_store, nth, counts, pid
        self.sprung = threading.Event()

    def __enter__(self) -> Trap:
        self._load.run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._load.run(self._stop())

    async def _start(self) -> None:
        self._store = self._open_store()
        begin = await self._store.current_revision(timeout_s=_OPEN_S) + 1
        watch = self._store.watch(keys.PREFIX, start_revision=begin)
        self._task = asyncio.create_task(self._count(watch))

    async def _stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._store.close()

    async def _count(self, watch: WatchStream) -> None:
        seen: set[int] = set()
        async for batch in watch:
            seen |= {event.kv.mod_revision for event in batch.events if self._counts(event.kv.key)}
            if len(seen) >= self._nth:
                os.kill(self._pid, signal.SIGKILL)
                self.sprung.set()
                return
