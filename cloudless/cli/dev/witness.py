"""Look at every coordinator many times a second: who leads, in which term, and when each agent was last heard.

Each coordinator is asked on a channel of its own for what it holds (a stale read), so that one that hangs delays no
other, and one that is wrong cannot hide behind one that is right.
"""

from __future__ import annotations

import asyncio
import time

from cloudless.cli.aio import AsyncClient
from cloudless.cli.dev.report import Sighting
from cloudless.cli.methods import LIST_NODES
from cloudless.errors import CloudlessError
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_STALE, ReadOptions
from cloudless.rpc.v1.node_pb2 import ListNodesRequest, ListNodesResponse

_PERIOD_S = 0.04
_TIMEOUT_S = 0.5


class Witness:
    """`sightings` only grows, and so does the list of moments (monotonic) at which a coordinator heard each node."""

    def __init__(self, clients: dict[str, AsyncClient]) -> None:
        self._clients = clients
        self._tasks: list[asyncio.Task[None]] = []
        self.sightings: list[Sighting] = []
        self._heard_s: dict[str, list[float]] = {}

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._look_on(name, client)) for name, client in self._clients.items()]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def newest(self) -> Sighting | None:
        """Return the newest word on the highest term seen."""
        return max(self.sightings, key=lambda s: (s.term, s.at_s), default=None)

    def heard_after(self, node_id: str, moment_s: float) -> float | None:
        """Return the first moment after `moment_s` at which a coordinator heard this node."""
        return next((at for at in self._heard_s.get(node_id, ()) if at > moment_s), None)

    async def _look_on(self, name: str, client: AsyncClient) -> None:
        request = ListNodesRequest(read=ReadOptions(consistency=CONSISTENCY_STALE))
        while True:
            asked_s = time.monotonic()
            try:
                answer = await client.call(LIST_NODES, request, timeout_s=_TIMEOUT_S)
            except CloudlessError:
                pass
            else:
                self._note(name, asked_s, answer)
            await asyncio.sleep(_PERIOD_S)

    def _note(self, name: str, asked_s: float, answer: ListNodesResponse) -> None:
        header = answer.header
        self.sightings.append(Sighting(time.monotonic(), name, header.term, header.leader_id))
        for node in answer.nodes:
            if node.last_heard_s >= 0:
                self._hear(node.id, asked_s - node.last_heard_s)

    def _hear(self, node_id: str, at_s: float) -> None:
        # Counted from before the question, so never later than it was; the list stays in order.
        heard = self._heard_s.setdefault(node_id, [])
        if not heard or at_s > heard[-1]:
            heard.append(at_s)
