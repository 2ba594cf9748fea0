"""Whether the agent's disk has room to start anything, looked at now and then and before each start.

Some room is kept free: what runs goes on, ends, is reported and cleaned up on a disk where nothing new is started.
With less than that, or a file system that takes no writes, starts wait (they do not count as restarts), and the node
says so, so that nothing more is placed on it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loguru import logger

from cloudless.adapters.host.disk import measure_room

LOOK_PERIOD_S = 2.0
LOOK_TIMEOUT_S = 5.0
INODES_KEPT = 1_000
_MIB = 1024 * 1024


class DiskRoom:
    """See the module. `on_change` is called when `fault` has changed: why nothing can be started, "" if it can."""

    def __init__(self, path: Path, keep_mb: int, on_change: Callable[[], None]) -> None:
        self._path, self._keep_mb, self._on_change = path, keep_mb, on_change
        self.fault = ""
        # One of its own: a disk that hangs keeps it, and nobody else's.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="room")
        self._looking: asyncio.Future[str] | None = None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> str:
        """Look now and return the fault. A disk that does not answer is one."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().run_in_executor(self._thread, self._find_fault)
        done, _ = await asyncio.wait({self._looking}, timeout=LOOK_TIMEOUT_S)
        fault = done.pop().result() if done else f"the disk of {self._path} does not answer"
        if fault != self.fault:
            kind, self.fault = bool(fault) != bool(self.fault), fault
            if kind and fault:
                logger.warning("nothing is started on this node: {}", fault)
            elif kind:
                logger.info("there is room on the agent's disk again")
            if kind:
                self._on_change()
        return fault

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_PERIOD_S)

    def _find_fault(self) -> str:
        try:
            if os.statvfs(self._path).f_flag & os.ST_RDONLY:
                return f"the disk of {self._path} is read-only"
            room = measure_room(self._path)
        except OSError as error:
            return f"the disk of {self._path} cannot be looked at: {error.strerror}"
        if room.free_bytes < self._keep_mb * _MIB:
            left_mb = room.free_bytes // _MIB
            return f"{left_mb}Mi are left on the disk of {self._path}, {self._keep_mb}Mi are kept free"
        if room.total_inodes and room.free_inodes < min(INODES_KEPT, room.total_inodes // 20):
            return f"{room.free_inodes} inodes are left on the disk of {self._path}"
        return ""
