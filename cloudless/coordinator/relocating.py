"""A coordinator that comes back meets the others by their API addresses, and sees who has moved.

What is decided from that is `core.membership.relocation`'s. Here: asking, and writing the new addresses down once the
members have found each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from loguru import logger

from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.member.marker import Marker
from cloudless.coordinator.neighbours import Answers
from cloudless.core.membership.relocation import Met, Relocation, Seat, plan_relocation
from cloudless.errors import CloudlessError
from cloudless.settings import CoordinatorSettings

SETTLE_S = 30.0
"""How long the others' addresses are waited for; who comes later asks the cluster, which serves by then."""
PAUSE_S = 0.2


def find_relocation(
    settings: CoordinatorSettings, marker: Marker, seats: Mapping[str, Seat], answers: Answers
) -> Relocation:
    """Decide from what the others answer of who and where they are, whether a relay is needed."""
    own = Met(settings.node_id, marker.member_id, marker.cluster_id, settings.raft_address)
    met = [
        Met(
            answer.node_id,
            f"{answer.member_id:x}",
            answer.etcd_cluster_id,
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
