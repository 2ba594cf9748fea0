"""What nodes use, asked of their agents when somebody wants to know it.

::

    who asks ──► any coordinator ──┬─ its own sessions ──► agents ──► answers
                                   └─ the other coordinators ──► their sessions ──► …

The question goes over the sessions that are there, so that five thousand nodes cost two messages each and no
connection, and nothing at all while nobody asks. Each agent is asked by the coordinator with its PRIMARY session.
Who does not answer inside `AGENT_TIMEOUT_S` is told to be silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

import grpc.aio

from cloudless.adapters.grpc.channel import Dialler
from cloudless.coordinator.replica import Replica
from cloudless.core.identity.names import IdentityKind, server_name
from cloudless.errors import CloudlessError
from cloudless.rpc.v1 import usage_pb2 as pb
from cloudless.rpc.v1.usage_pb2_grpc import UsageServiceStub

AGENT_TIMEOUT_S = 1.5
PEER_TIMEOUT_S = 2.0
NODES_MAX = 10_000


class UsageDesk:
    """Questions to agents that are under way; several askers of one agent share its answer."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[pb.NodeUsage]] = {}

    async def ask(self, node_ids: Iterable[str], send: Callable[[str], bool]) -> list[pb.NodeUsage]:
        """Return what those of `node_ids` answer to whom `send` can pass the question on."""
        futures = []
        for node_id in node_ids:
            # Passed on each time: who asked before may have given up. The session and the agent make one of several.
            if send(node_id):
                waiting = self._waiting.setdefault(node_id, asyncio.get_running_loop().create_future())
                futures.append(waiting)
        if not futures:
            return []
        done, late = await asyncio.wait(futures, timeout=AGENT_TIMEOUT_S)
        for node_id in [node_id for node_id, future in self._waiting.items() if future in late]:
            del self._waiting[node_id]  # the next question is passed on again
        return [future.result() for future in done]

    def take(self, node_id: str, usage: pb.NodeUsage) -> None:
        """Take an agent's answer in; one that nobody waits for is dropped."""
        waiting = self._waiting.pop(node_id, None)
        if waiting is not None and not waiting.done():
            usage.node_id = node_id
            waiting.set_result(usage)


class UsageCollector:
    """Asks the own sessions' agents and, through the other coordinators, everybody else's."""

    def __init__(
        self, own_id: str, replica: Replica, desk: UsageDesk, send: Callable[[str], bool], dialler: Dialler
    ) -> None:
        self._own_id, self._replica, self._desk, self._send, self._dialler = own_id, replica, desk, send, dialler

    async def collect(self, node_ids: Collection[str]) -> Mapping[str, pb.NodeUsage]:
        """Return what the nodes use, as far as they answered."""
        peers = [
            (record.id, record.api_address)
            for record in self._replica.machine.coordinators.values()
            if record.id != self._own_id and record.api_address
        ]
        asked = [self.collect_own(node_ids), *(self._ask_peer(id, address, node_ids) for id, address in peers)]
        found = await asyncio.gather(*asked)
        return {usage.node_id: usage for usages in found for usage in usages}

    async def collect_own(self, node_ids: Iterable[str]) -> list[pb.NodeUsage]:
        """Return what the nodes with their primary session here use."""
        return await self._desk.ask(node_ids, self._send)

    async def _ask_peer(self, peer_id: str, address: str, node_ids: Collection[str]) -> list[pb.NodeUsage]:
        channel = self._dialler.open(address, server_name(IdentityKind.COORDINATOR, peer_id))
        try:
            with suppress(CloudlessError, grpc.aio.AioRpcError):
                request = pb.CollectUsageRequest(node_ids=node_ids)
                stub = UsageServiceStub(channel)  # type: ignore[no-untyped-call]
                answer = await stub.CollectUsage(request, timeout=PEER_TIMEOUT_S)
                return list(answer.nodes)
        finally:
            await channel.close()
        return []
