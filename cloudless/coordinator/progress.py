"""How far each coordinator's member has got: told to the others on every beat, kept on disk by all.

This is what tells an older copy of a data directory from the real one (`core.membership.returning`). What is told
of our own member was seen a period ago, so that it is in our log for certain: etcd may apply an entry a moment
before its own disk has it. A crash while that disk hangs longer can cost a needless replacement, never a lost write.

With it goes the digest of the sender's state. A coordinator that a majority contradicts twice in a row ends: its
database is damaged, and it is replaced when it is started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from loguru import logger

from cloudless.adapters.member.progress import Progress
from cloudless.coordinator.membership import Members
from cloudless.coordinator.replica import Replica
from cloudless.core.membership.relocation import Seat
from cloudless.core.membership.returning import Reached, find_divergence, newer
from cloudless.errors import DataLost
from cloudless.ports import Clock
from cloudless.rpc.v1 import peer_pb2 as pb

NOTE_PERIOD_S = 2.0
DIGEST_BYTES = 16
WITNESSED_MAX = 16
"""Bounds the table against callers that make names up; a cluster has at most seven voters."""


class ProgressTable:
    """What is known now: of our own member, and of the others as they tell it themselves."""

    def __init__(self, heard: Mapping[str, Reached] | None = None) -> None:
        self.own: Reached | None = None
        self.heard: dict[str, Reached] = dict(heard or {})
        self.own_state = (0, 0)
        self.states: dict[str, tuple[int, int]] = {}

    def tell(self) -> pb.MemberProgress | None:
        """Return what goes with each beat, None until our own member is known."""
        if self.own is None:
            return None
        revision, digest = self.own_state
        return pb.MemberProgress(
            member_id=int(self.own.member_id, 16),
            raft_index=self.own.raft_index,
            revision=revision,
            digest=digest.to_bytes(DIGEST_BYTES, "big"),
        )

    def take(self, node_id: str, said: pb.MemberProgress) -> None:
        """Keep what another coordinator tells of its member."""
        if said.member_id and (node_id in self.heard or len(self.heard) < WITNESSED_MAX):
            self.heard[node_id] = newer(self.heard.get(node_id), Reached(f"{said.member_id:x}", said.raft_index))
            if said.revision:
                self.states[node_id] = said.revision, int.from_bytes(said.digest, "big")


class ProgressNotes:
    """Writes down, every `NOTE_PERIOD_S` and only if it changed, what `table` and the member list say."""

    def __init__(self, own_id: str, path: Path, table: ProgressTable, members: Members, replica: Replica) -> None:
        self._own_id, self._path, self._table = own_id, path, table
        self._members, self._replica = members, replica
        self._seen: Reached | None = None
        self._written: Progress | None = None
        self._divergence = ""

    async def run(self, clock: Clock) -> None:
        """Note until cancelled. Raises DataLost when the state turns out to be another than the majority's."""
        hindered = False
        while True:
            try:
                await self._note()
                hindered = False
            except OSError as error:  # a full disk: the others' memory still bears witness
                if not hindered:
                    logger.warning("cannot note how far the members have got: {}", error)
                hindered = True
            await self._compare()
            await clock.sleep(NOTE_PERIOD_S)

    async def _compare(self) -> None:
        """Compare with what the others said of their states, and say something of our own for their next look."""
        replica, said = self._replica, dict(self._table.states)
        own = {revision: replica.find_digest(revision) for revision, _ in said.values()}
        before, self._divergence = self._divergence, find_divergence(own, said, self._members.voters())
        if before and self._divergence:
            written = self._written or Progress()
            await asyncio.to_thread(replace(written, doubt=self._divergence).write, self._path)
            raise DataLost(
                f"the data of {self._own_id} are damaged: {self._divergence}",
                hint="start it again: its data are put aside and its member is replaced",
            )
        if replica.loaded.is_set():
            self._table.own_state = replica.machine.revision, replica.machine.digest

    async def _note(self) -> None:
        status = self._members.status
        own = next((m for m in self._members.list if status and m.id == status.member_id), None)
        if status is None or own is None:
            return
        reached, self._seen = self._seen, Reached(f"{status.member_id:x}", status.raft_applied_index)
        progress = Progress(
            reached=reached or self._table.own,
            peer_url=own.peer_urls[0] if own.peer_urls else "",
            heard=dict(self._table.heard),
            addresses={
                record.id: record.api_address
                for record in self._replica.machine.coordinators.values()
                if record.id != self._own_id and record.api_address
            },
            members={
                member.name: Seat(f"{member.id:x}", member.peer_urls[0].partition("://")[2], member.is_learner)
                for member in self._members.list
                if member.name and member.peer_urls
            },
        )
        self._table.own = reached or self._table.own
        if progress != self._written:
            await asyncio.to_thread(progress.write, self._path)
            self._written = progress
