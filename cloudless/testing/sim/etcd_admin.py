"""One coordinator's `EtcdAdmin`: what it asks its own member about the members, over the simulated way to the store.

Status is the member's own word and needs no quorum; everything else does. An answer can be lost after the change was
made; a change that reached no leader was not made, and its sender cannot tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from cloudless.adapters.etcd.admin import Member, MemberStatus
from cloudless.testing.sim.etcd_cluster import EtcdCluster
from cloudless.testing.sim.store import SimStore

READ_TIMEOUT_S = 5.0


class SimAdmin:
    """The `EtcdAdmin` of one host, as far as members are concerned."""

    def __init__(self, host: str, store: SimStore, cluster: EtcdCluster) -> None:
        self._host, self._store, self._cluster = host, store, cluster

    async def status(self) -> MemberStatus:
        await asyncio.sleep(0)
        return self._cluster.status(self._host)

    async def members(self, *, linearizable: bool = True) -> tuple[Member, ...]:
        self._cluster.status(self._host)  # refused at once without a member
        found: tuple[Member, ...] = await self._ask("member-list", self._cluster.list)
        return found

    async def add_learner(self, peer_urls: Iterable[str]) -> Member:
        (peer_url,) = peer_urls
        added: Member = await self._change("member-add", lambda: self._cluster.add_learner(self._host, peer_url))
        return added

    async def promote(self, member_id: int) -> None:
        await self._change("member-promote", lambda: self._cluster.promote(self._host, member_id))

    async def remove(self, member_id: int) -> None:
        await self._change("member-remove", lambda: self._cluster.remove(self._host, member_id))

    async def move_leader(self, target_id: int) -> None:
        await self._change("move-leader", lambda: self._cluster.move_leader(self._host, target_id))

    def close(self) -> None:
        return

    async def _change(self, call: str, do: Callable[[], Any]) -> Any:
        self._cluster.status(self._host)
        return await self._ask(call, do, changes=True)

    async def _ask(self, call: str, do: Callable[[], Any], *, changes: bool = False) -> Any:
        async def work() -> Any:
            return do()

        return await self._store.call(call, work, READ_TIMEOUT_S, write=changes, critical=changes)
