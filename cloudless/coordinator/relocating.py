"""A coordinator that comes back meets the others by their API addresses, and sees who has moved.

What is decided from that is `core.membership.relocation`'s. Here: asking, and writing the new addresses down once the
members have found each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from loguru import logger

from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.member.marker import Marker
from cloudless.adapters.member.relay import Relay
from cloudless.adapters.member.supervisor import MemberSupervisor
from cloudless.coordinator.asking import ask_formation
from cloudless.core.membership.relocation import Met, Relocation, Seat, plan_relocation
from cloudless.errors import CloudlessError
from cloudless.settings import CoordinatorSettings

SETTLE_S = 30.0
"""How long the others' addresses are waited for; who comes later asks the cluster, which serves by then."""
PAUSE_S = 0.2


class Detour:
    """The relay of a member whose peers have moved: there until the cluster has written the new addresses down."""

    def __init__(self) -> None:
        self._relay: Relay | None = None

    @property
    def is_open(self) -> bool:
        return self._relay is not None

    def environment(self) -> dict[str, str]:
        """Return what etcd has to be started with besides."""
        return self._relay.environment() if self._relay else {}

    async def open(self, routes: Mapping[str, str]) -> None:
        told = ", ".join(f"{old} is now {new}" for old, new in sorted(routes.items()))
        logger.warning("a majority of the members came back, some at other addresses: {}", told)
        self._relay = Relay(routes)
        await self._relay.start()

    async def end(self, supervisor: MemberSupervisor, admin: EtcdAdmin, peer_url: str) -> None:
        """Let the quorum that the relay made know the new addresses, then start etcd again without it."""
        assert self._relay is not None
        status = await admin.status()
        await settle_addresses(admin, status.member_id, peer_url, self._relay.routes)
        logger.info("the cluster knows its members' new addresses")
        await supervisor.restart(environment={})
        await self._relay.close()
        self._relay = None


async def find_relocation(
    settings: CoordinatorSettings, marker: Marker, seats: Mapping[str, Seat], others: Sequence[str]
) -> Relocation:
    """Ask the others who they are and where, and decide whether a relay is needed."""
    answers = await ask_formation(others)
    own = Met(settings.node_id, marker.member_id, marker.cluster_id, settings.raft_address)
    met = [
        Met(
            answer.node_id,
            f"{answer.member_id:x}",
            f"{answer.etcd_cluster_id:x}",
            answer.raft_address,
            answer.serves,
        )
        for answer in answers.values()
        if answer.node_id != settings.node_id
    ]
    return plan_relocation(own, seats, met)


async def settle_addresses(admin: EtcdAdmin, member_id: int, peer_url: str, routes: Mapping[str, str]) -> None:
    """Write our own member's address down, and wait for the others to have done so with theirs, for a while."""
    ends_s = asyncio.get_running_loop().time() + SETTLE_S
    while True:
        try:
            members = await admin.members()
            own = next((member for member in members if member.id == member_id), None)
            if own is not None and own.peer_urls != (peer_url,):
                await admin.update_peer_urls(member_id, [peer_url])
                continue
            told = {url.partition("://")[2] for member in members for url in member.peer_urls}
            if not told & routes.keys():
                return
        except CloudlessError as error:
            logger.debug("new addresses not written down yet: {}", error)
        if asyncio.get_running_loop().time() > ends_s:
            logger.warning("not all members have written their new addresses down; going on without them")
            return
        await asyncio.sleep(PAUSE_S)
