"""Has the cluster healed? Three voters, every coordinator answers, equal digests at one revision, all nodes READY."""

from __future__ import annotations

import asyncio
import time

from cloudless.cli.aio import AsyncClient
from cloudless.cli.dev import web
from cloudless.cli.dev.identities import metrics_context
from cloudless.cli.dev.layout import HOST, Layout
from cloudless.cli.methods import GET_DIGEST, GET_STATUS, LIST_MEMBERS, LIST_NODES
from cloudless.errors import CloudlessError
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest, GetStatusRequest, ListMembersRequest
from cloudless.rpc.v1.node_pb2 import ListNodesRequest

_POLL_S = 0.1
_ANSWER_S = 2.0
_METRICS_S = 5.0
IS_LEADER = "cloudless_coordinator_is_leader"


class Health:
    """Looks at all coordinators of one dev cluster."""

    def __init__(self, layout: Layout, clients: dict[str, AsyncClient]) -> None:
        self._layout = layout
        self._clients = clients
        self._missing = ""

    async def wait_settled(self, timeout_s: float) -> float | None:
        """Return the moment (monotonic) at which the cluster was found healed, or None if it was not in time."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._missing = await self._look()
            if not self._missing:
                return time.monotonic()
            if time.monotonic() > deadline_s:
                return None
            await asyncio.sleep(_POLL_S)

    def findings(self) -> list[str]:
        """Return what was still missing at the end of the last wait."""
        return [f"not healed: {self._missing}"] if self._missing else []

    async def leader_metrics(self) -> list[str]:
        """Return what the leader metric says wrongly: exactly one coordinator must come to show 1, the others 0."""
        deadline_s = time.monotonic() + _METRICS_S
        while True:
            plans = self._layout.coordinators
            tls = metrics_context(self._layout)
            values = {p.name: await web.read_metric(HOST, p.metrics_port, IS_LEADER, tls) for p in plans}
            if sorted(v if v is not None else -1 for v in values.values()) == [0, 0, 1]:
                return []
            if time.monotonic() > deadline_s:
                return [f"{IS_LEADER} is {', '.join(f'{name} {value}' for name, value in values.items())}"]
            await asyncio.sleep(_POLL_S)

    async def _look(self) -> str:
        try:
            for name, client in self._clients.items():
                status = await client.call(GET_STATUS, GetStatusRequest(), timeout_s=_ANSWER_S)
                if not status.header.leader_id:
                    return f"{name} knows no leader"
            return await self._voters() or await self._nodes() or await self._digests()
        except CloudlessError as error:
            return error.message

    async def _voters(self) -> str:
        client = next(iter(self._clients.values()))
        members = (await client.call(LIST_MEMBERS, ListMembersRequest(), timeout_s=_ANSWER_S)).members
        voters = {m.name for m in members if m.started and not m.learner}
        missing = [name for name in self._clients if name not in voters]
        return f"no voter: {', '.join(missing)}" if missing else ""

    async def _nodes(self) -> str:
        client = next(iter(self._clients.values()))
        phases = {n.id: n.phase for n in (await client.call(LIST_NODES, ListNodesRequest(), timeout_s=_ANSWER_S)).nodes}
        missing = [f"{a.name} is {phases.get(a.name, 'not known')}" for a in self._layout.agents
                   if phases.get(a.name) != "READY"]  # fmt: skip
        return ", ".join(missing)

    async def _digests(self) -> str:
        """Compare at one revision; the newest one differs between coordinators while writes go on."""
        newest = [await self._digest(client, 0) for client in self._clients.values()]
        aim = max(revision for revision, _ in newest)
        digests = {name: (await self._digest(client, aim)) for name, client in self._clients.items()}
        if any(revision != aim for revision, _ in digests.values()):
            return f"digests are of different revisions: {digests}"
        return (
            ""
            if len({digest for _, digest in digests.values()}) == 1
            else f"digests differ at revision {aim}: {digests}"
        )

    async def _digest(self, client: AsyncClient, revision: int) -> tuple[int, str]:
        answer = await client.call(GET_DIGEST, GetDigestRequest(revision=revision), timeout_s=_ANSWER_S)
        return answer.revision, answer.digest
