"""A client that writes: each request goes to random coordinators under one id until it is acknowledged or given up.

Several writers share the objects, so that they race. Some writes are conditional on what was just read, some delete,
some are sent to two coordinators at once, and some are sent again after they were acknowledged: all under one id,
so that they must have one effect and one answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloudless.cli.failover import Failure
from cloudless.cli.methods import APPLY_WORKLOAD, DELETE_WORKLOAD, GET_WORKLOAD, Method
from cloudless.errors import UserError
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_LINEARIZABLE, ReadOptions, WriteOptions
from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest, DeleteWorkloadRequest, GetWorkloadRequest
from cloudless.testing.history import Action, Operation, Outcome
from cloudless.testing.load.door import Door
from cloudless.testing.load.notebook import Notebook
from cloudless.testing.load.objects import manifest_of

_DELETE_SHARE = 0.05
_CONDITIONAL_SHARE = 0.25
_TWICE_SHARE = 0.1
_AGAIN_SHARE = 0.1
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it is sent, however often."""

    method: Method[Any, Any]
    request: Any
    operation: Operation


class Writer:
    """One writer. `attempt_s` bounds one attempt, `patience_s` all of them."""

    def __init__(
        self, name: str, doors: Sequence[Door], notebook: Notebook, objects: tuple[str, Sequence[str]], seed: int
    ) -> None:
        self._name, self._doors, self._notebook = name, doors, notebook
        self._namespace, self._names = objects
        self._random = random.Random(seed)
        self._sent = 0
        self.attempt_s = 2.0
        self.patience_s = 15.0

    async def write(self) -> None:
        """Make one write, with what belongs to it."""
        self._sent += 1
        sent = await self._build(f"{self._name}.{self._sent}")
        draw = self._random.random()
        if draw < _TWICE_SHARE:
            await asyncio.gather(self._send(sent), self._send(sent))
        elif await self._send(sent) and draw < _TWICE_SHARE + _AGAIN_SHARE:
            await self._send(sent)

    async def _build(self, request_id: str) -> Sent:
        name = self._random.choice(self._names)
        draw = self._random.random()
        options = WriteOptions(request_id=request_id)
        operation = Operation(
            client=self._name, action=Action.WRITE, name=name, value=request_id, call_s=0.0, request_id=request_id
        )
        if draw < _DELETE_SHARE:
            deletion = DeleteWorkloadRequest(options=options, namespace=self._namespace, name=name)
            return Sent(DELETE_WORKLOAD, deletion, replace(operation, value=None))
        if draw < _DELETE_SHARE + _CONDITIONAL_SHARE:
            options.if_revision = await self._look(name)
        request = ApplyWorkloadRequest(options=options, manifest=manifest_of(self._namespace, name, request_id))
        return Sent(APPLY_WORKLOAD, request, replace(operation, if_revision=options.if_revision))

    async def _look(self, name: str) -> int:
        """Return the object's revision, 0 if it is not there or nobody says."""
        read = ReadOptions(consistency=CONSISTENCY_LINEARIZABLE)
        request = GetWorkloadRequest(read=read, namespace=self._namespace, name=name)
        answer = await self._random.choice(self._doors).ask(GET_WORKLOAD, request, self.attempt_s)
        return 0 if isinstance(answer, Failure) else answer.workload.revision

    async def _send(self, sent: Sent) -> bool:
        """Send until acknowledged, refused or out of patience; note what it came to and return whether it was done."""
        called_s = time.monotonic()
        number = self._notebook.open(replace(sent.operation, call_s=called_s))
        attempts, pause_s = 0, _FIRST_PAUSE_S
        while True:
            attempts += 1
            door = self._random.choice(self._doors)
            answer = await door.ask(sent.method, sent.request, self.attempt_s)
            now_s = time.monotonic()
            if not isinstance(answer, Failure):
                revision = answer.header.revision
                self._notebook.end(number, return_s=now_s, revision=revision, coordinator=answer.header.coordinator_id)
                return True
            if not answer.again:
                self._notebook.note_error(sent.operation, answer.error)
                # What an earlier attempt did may still come, whatever this one was told.
                sure = attempts == 1 and answer.answered and isinstance(answer.error, UserError)
                outcome = Outcome.FAILED if sure else Outcome.AMBIGUOUS
                self._notebook.end(number, return_s=now_s, outcome=outcome)
                return False
            if now_s - called_s + pause_s > self.patience_s:
                self._notebook.end(number, return_s=now_s, outcome=Outcome.AMBIGUOUS)
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
