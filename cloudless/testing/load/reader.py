"""A client that reads: one object or all of them, from a random coordinator, as fresh as it draws.

What it was promised goes with every answer into the notebook: a bounded read may be as old as was asked for, a stale
one as old as its answer says, and one with a minimum never older than what this client has seen.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace

from cloudless.cli.failover import Failure
from cloudless.cli.methods import GET_WORKLOAD, LIST_WORKLOADS
from cloudless.errors import NotFound
from cloudless.rpc.v1.common_pb2 import (
    CONSISTENCY_BOUNDED,
    CONSISTENCY_LINEARIZABLE,
    CONSISTENCY_STALE,
    ReadOptions,
    ResponseHeader,
)
from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest, ListWorkloadsRequest
from cloudless.testing.history import Action, Consistency, Operation
from cloudless.testing.load.door import Door
from cloudless.testing.load.notebook import Notebook
from cloudless.testing.load.objects import value_of

_LIST_SHARE = 0.2
_MINIMUM_SHARE = 0.5
_BOUND_S = 0.5
_WIRE = {
    Consistency.LINEARIZABLE: CONSISTENCY_LINEARIZABLE,
    Consistency.BOUNDED: CONSISTENCY_BOUNDED,
    Consistency.STALE: CONSISTENCY_STALE,
}
# Half of all reads are linearizable: they promise most.
_DRAWN = (Consistency.LINEARIZABLE, Consistency.LINEARIZABLE, Consistency.BOUNDED, Consistency.STALE)


class Reader:
    """One reader."""

    def __init__(
        self, name: str, doors: Sequence[Door], notebook: Notebook, objects: tuple[str, Sequence[str]], seed: int
    ) -> None:
        self._name, self._doors, self._notebook = name, doors, notebook
        self._namespace, self._names = objects
        self._random = random.Random(seed)
        self._seen = 0
        self.attempt_s = 3.0

    async def read(self) -> None:
        """Ask one coordinator once."""
        consistency = self._random.choice(_DRAWN)
        least = self._seen if self._random.random() < _MINIMUM_SHARE else 0
        bound_s = _BOUND_S if consistency is Consistency.BOUNDED else 0.0
        read = ReadOptions(consistency=_WIRE[consistency], max_staleness_s=bound_s, min_revision=least)
        asked = Operation(
            client=self._name, action=Action.READ, name=self._random.choice(self._names), value=None,
            call_s=time.monotonic(), consistency=consistency, min_revision=least,
        )  # fmt: skip
        door = self._random.choice(self._doors)
        if self._random.random() < _LIST_SHARE:
            await self._list(door, read, asked)
        else:
            await self._get(door, read, asked)

    async def _get(self, door: Door, read: ReadOptions, asked: Operation) -> None:
        number = self._notebook.open(asked)
        request = GetWorkloadRequest(read=read, namespace=self._namespace, name=asked.name)
        answer = await door.ask(GET_WORKLOAD, request, self.attempt_s)
        if isinstance(answer, Failure):
            if isinstance(answer.error, NotFound):
                # Such an answer names neither its revision nor its age.
                bound_s = read.max_staleness_s or math.inf
                self._notebook.end(number, return_s=time.monotonic(), staleness_s=bound_s)
            else:
                self._notebook.drop(number)
                self._notebook.note_error(asked, answer.error)
            return
        self._notebook.end(number, value=value_of(answer.workload.record), **self._known(answer.header, read))

    async def _list(self, door: Door, read: ReadOptions, asked: Operation) -> None:
        """Read all objects at one revision: an operation for each, those that are not there included."""
        numbers = {name: self._notebook.open(replace(asked, name=name)) for name in self._names}
        answer = await door.ask(
            LIST_WORKLOADS, ListWorkloadsRequest(read=read, namespace=self._namespace), self.attempt_s
        )
        if isinstance(answer, Failure):
            for number in numbers.values():
                self._notebook.drop(number)
            return self._notebook.note_error(asked, answer.error)
        values = {workload.record.name: value_of(workload.record) for workload in answer.workloads}
        for name, number in numbers.items():
            self._notebook.end(number, value=values.get(name), **self._known(answer.header, read))

    def _known(self, header: ResponseHeader, read: ReadOptions) -> dict[str, object]:
        self._seen = max(self._seen, header.revision)
        declared_s = header.staleness_s if header.staleness_s >= 0 else math.inf
        return {
            "return_s": time.monotonic(),
            "revision": header.revision,
            "coordinator": header.coordinator_id,
            "staleness_s": read.max_staleness_s or declared_s,
        }
