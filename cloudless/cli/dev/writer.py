"""A steady load of writes whose fate can be proved.

Each worker changes a workload of its own (no replicas, so nothing runs): one annotation holds a number that counts
up. A write is sent under one request id until it is acknowledged or given up; given up means uncertain, because it
may still have happened.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid

from cloudless.cli.aio import AsyncClient
from cloudless.cli.dev.report import Ack
from cloudless.cli.methods import APPLY_WORKLOAD, DELETE_WORKLOAD
from cloudless.errors import CloudlessError, NotFound
from cloudless.rpc.v1.common_pb2 import WriteOptions
from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest, DeleteWorkloadRequest

NAMESPACE = "drill"
ANNOTATION = "drill-value"
_WORKERS = 4
_WRITES_PER_S = 50.0
_WRITE_TIMEOUT_S = 15.0
_PAUSE_AFTER_FAILURE_S = 0.2


def manifest_of(name: str, number: int) -> str:
    """Return the manifest of a worker's workload that carries `number`."""
    return json.dumps(
        {
            "apiVersion": "cloudless/v1",
            "kind": "Workload",
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {ANNOTATION: str(number)}},
            "spec": {"executor": "process", "command": ["true"], "replicas": 0},
        }
    )


class Writer:
    """The load. `acks` only grows; `uncertain` counts writes given up, `refusals` holds what the cluster refused."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        run = uuid.uuid4().hex[:8]
        self.names = tuple(f"writer-{run}-{worker}" for worker in range(_WORKERS))
        self.acks: list[Ack] = []
        self.uncertain = 0
        self.refusals: list[str] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._write_on(name)) for name in self.names]

    async def stop(self) -> None:
        """Let every worker finish the write it has begun; then delete the workloads, as far as that works."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        for name in self.names:
            try:
                await self._client.call(DELETE_WORKLOAD, DeleteWorkloadRequest(namespace=NAMESPACE, name=name))
            except NotFound:
                continue

    def last_acks(self) -> dict[str, Ack]:
        """Return the newest acknowledged write of each workload."""
        return {ack.name: ack for ack in self.acks}

    async def _write_on(self, name: str) -> None:
        period_s = _WORKERS / _WRITES_PER_S
        number = 0
        while not self._stopping.is_set():
            number += 1
            started_s = time.monotonic()
            try:
                self.acks.append(await self._write(name, number))
            except CloudlessError as error:
                if error.retryable:
                    self.uncertain += 1
                else:
                    self.refusals.append(f"{name} value {number}: {error.code}: {error.message}")
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)
            await asyncio.sleep(max(0.0, period_s - (time.monotonic() - started_s)))

    async def _write(self, name: str, number: int) -> Ack:
        request = ApplyWorkloadRequest(
            options=WriteOptions(request_id=uuid.uuid4().hex), manifest=manifest_of(name, number)
        )
        sent_s = time.monotonic()
        (result,) = (await self._client.call(APPLY_WORKLOAD, request, timeout_s=_WRITE_TIMEOUT_S)).results
        return Ack(name, number, result.generation, result.revision, sent_s, time.monotonic())
