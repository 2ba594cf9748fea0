"""In a process of its own: the production replica of one coordinator on an etcd member, from nothing to loaded.

`python -m tests.bench.loading ENDPOINT` answers with the seconds it took, the entries it holds and its memory, then
follows the store and answers each line of input with the revisions it applied since, and when (monotonic clock).
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time

from loguru import logger

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.system import SystemClock
from cloudless.cli.dev.table import rss_mb
from cloudless.coordinator.main import COLLECT_AFTER
from cloudless.coordinator.replica import Replica
from cloudless.core.state import Applied
from tests.bench.children import answer, read_requests


async def _follow(endpoint: str) -> None:
    store = EtcdStore(endpoint)
    replica = Replica(store, SystemClock())
    applied_at: list[tuple[int, float]] = []

    def note(applied: Applied) -> None:
        applied_at.append((applied.revision, time.monotonic()))

    started_s = time.monotonic()
    running = asyncio.create_task(replica.run())
    await replica.loaded.wait()
    answer({
        "load_s": time.monotonic() - started_s,
        "entries": replica.machine.entry_count,
        "rss_mb": rss_mb(os.getpid()),
    })  # fmt: skip
    replica.listen(note)
    async for _ in read_requests():
        answer(applied_at)
        applied_at.clear()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


if __name__ == "__main__":
    gc.set_threshold(*COLLECT_AFTER)
    logger.remove()
    asyncio.run(_follow(sys.argv[1]))
