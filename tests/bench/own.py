"""The control plane's own writes: the production committer with a fence, fed like the leader feeds it.

A process of its own, as the leader is: it commits reports of tasks (encode, precondition, nested transaction,
fence), so many at once as a planner's round has, and says how many it got done.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.system import SystemClock
from cloudless.coordinator.commit import Committer, Fence
from cloudless.core.model import TaskObserved, TaskState
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.ports import Get, Got, Put, Txn
from tests.bench.children import Child, answer, read_requests, start_module
from tests.bench.load import Step

AT_ONCE = 2_000
_FENCE_KEY = "/bench-fence"
_TIMEOUT_S = 30.0


class OwnWrites:
    """The helper process that commits."""

    def __init__(self, child: Child) -> None:
        self._child = child

    @classmethod
    async def start(cls, stack: AsyncExitStack, endpoint: str, profile_to: Path | None = None) -> OwnWrites:
        child = await start_module(stack, "tests.bench.own", endpoint, profile_to=profile_to)
        await child.read_json()
        return cls(child)

    def step(self) -> Step:
        """Return rounds of `AT_ONCE` changes, one round after the other."""
        return Step(lambda _: self._child.ask("round"), 1, worth=AT_ONCE)


async def _serve(endpoint: str) -> None:
    store = EtcdStore(endpoint)
    await store.txn(Txn(then=(Put(_FENCE_KEY, b""),)), timeout_s=_TIMEOUT_S)
    found = (await store.txn(Txn(then=(Get(_FENCE_KEY),)), timeout_s=_TIMEOUT_S)).results[0]
    assert isinstance(found, Got)
    assert found.kv is not None
    committer = Committer(store, SystemClock(), fence=Fence(_FENCE_KEY, found.kv.create_revision))
    running = asyncio.create_task(committer.run())
    # The reaper would delete reports of unknown tasks: these lie beside the prefix that is watched.
    reports = [_Report(f"/bench-own/{n}", _observed(n)) for n in range(AT_ONCE)]
    answer("ready")
    async for _ in read_requests():
        started_s = time.perf_counter()
        await asyncio.gather(*(report.write(committer) for report in reports))
        answer(time.perf_counter() - started_s)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


class _Report:
    """One task's report, written again and again."""

    def __init__(self, key: str, record: TaskObserved) -> None:
        self._key, self._record, self._revision = key, record, 0

    async def write(self, committer: Committer) -> None:
        self._record = replace(self._record, sequence=self._record.sequence + 1)
        change = Change(
            puts=(PutRecord(self._key, self._record),),
            preconditions=(Precondition(self._key, self._revision),),
            reason="report",
        )
        self._revision = (await committer.commit(change, timeout_s=_TIMEOUT_S)).revision


def _observed(number: int) -> TaskObserved:
    return TaskObserved(
        task_id=f"task-{number:06d}", node_id=f"node-{number % 100:03d}", sequence=0, state=TaskState.RUNNING,
        attempt=1, pid=1000 + number, host="127.0.0.1", started_at_ms=1_700_000_000_000, ports={"http": 20_000},
    )  # fmt: skip


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
