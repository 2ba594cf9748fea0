"""What a coordinator with data makes sure of before it starts etcd on them.

First that they are whole: nothing was noted against them, and they are no older copy. The log must go at least as far
as this node noted itself and as any other coordinator has heard (`core.membership.returning`). Then that the cluster
knows the member under its present raft address: the member list is changed before the member starts there, never after.

All the others are asked, for a few seconds only. If none answers, etcd starts all the same and says so in the log:
an older copy *and* nobody who could tell is left to the operator; a cluster that waits for ever is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from loguru import logger

from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.marker import Marker
from cloudless.adapters.member.pidfile import find_orphan
from cloudless.adapters.member.progress import Progress
from cloudless.adapters.member.wal import last_index
from cloudless.coordinator.asking import call_once
from cloudless.coordinator.credentials import OwnCredentials
from cloudless.coordinator.neighbours import Neighbours, describe_failures
from cloudless.coordinator.relocating import find_relocation
from cloudless.core.membership.relocation import Relocation
from cloudless.core.membership.returning import Reached, find_outdated
from cloudless.errors import CloudlessError, FormationRefused, NotFound
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.settings import CoordinatorSettings

# For the first answer, and after that for those that are still silent: hosts that are down, addresses of old.
WITNESS_WAIT_S = 5.0
SILENT_WAIT_S = 2.0
PAUSE_S = 0.25
MOVE_TIMEOUT_S = 5.0


class Returning:
    """The return of one node to its cluster. `say` tells what is waited for."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        datadir: DataDir,
        own: OwnCredentials,
        neighbours: Neighbours,
        say: Callable[[str], None],
    ) -> None:
        self._settings, self._datadir, self._own, self._say = settings, datadir, own, say
        self._neighbours = neighbours
        self._noted = Progress.read(datadir.progress)
        self._alone = False

    async def find_outdated(self, marker: Marker) -> str:
        """Return why the data must not be started again: older than they must be, or of a cluster that was replaced.

        "" if nobody contradicts them.
        """
        if find_orphan(self._datadir.pidfile, str(self._datadir.etcd_dir)):
            # Its etcd never ended, so nothing was put back; but the others may have gone on without it.
            return _find_replaced(marker, (await self._neighbours.ask()).answers.values())
        if self._noted.doubt and self._neighbours.any:
            return self._noted.doubt
        log_ends = await asyncio.to_thread(last_index, self._datadir.etcd_dir)
        answers = await self._ask_witnesses()
        replaced = _find_replaced(marker, answers)
        if replaced:
            return replaced
        witnesses = self._words_of(answers)
        if self._noted.reached is not None:
            witnesses.append((f"{self._settings.node_id} itself", self._noted.reached))
        reason = find_outdated(marker.member_id, log_ends, witnesses)
        if reason and self._alone:
            logger.error("{}; there is no other coordinator to get the rest from", reason)
            return ""
        return reason

    async def _ask_witnesses(self) -> list[pb.GetFormationResponse]:
        """Ask until all others have answered, or those that do not have had their time.

        Not only until one has: of several that come back together, another old copy may be the first.
        """
        loop, answers = asyncio.get_running_loop(), dict[str, pb.GetFormationResponse]()
        ends_s = loop.time() + WITNESS_WAIT_S
        while self._neighbours.any:
            round = await self._neighbours.ask()
            self._alone = not (round.silent or round.answers)
            if round.who.usable and not answers:
                ends_s = loop.time() + SILENT_WAIT_S
            answers.update((address, round.answers[address]) for address in round.who.usable)
            silent = [address for address in round.silent if address not in answers]
            # A name that cannot be looked up may stand for others, as silence does.
            unresolved = self._neighbours.unresolved() if not answers else []
            if not (silent or unresolved) or loop.time() > ends_s:
                break
            self._say(f"asking {', '.join((*silent, *unresolved))} how far this member had got")
            await asyncio.sleep(PAUSE_S)
        self._alone = self._alone or not self._neighbours.any
        if not self._alone and not answers:
            logger.warning("no other coordinator answers: nobody can tell whether this node's data are of today")
        return [answer for answer in answers.values() if answer.node_id != self._settings.node_id]

    def _words_of(self, answers: Iterable[pb.GetFormationResponse]) -> list[tuple[str, Reached]]:
        """Return who says how far our member had got."""
        return [
            (answer.node_id, Reached(f"{heard.member_id:x}", heard.raft_index))
            for answer in answers
            for heard in answer.heard
            if heard.node_id == self._settings.node_id
        ]

    async def find_routes(self) -> Mapping[str, str]:
        """Return the way from old addresses to new ones, if a majority has come back and some of it has moved."""
        marker = Marker.read(self._datadir.marker)
        return (await self._relocation(marker)).routes

    async def _relocation(self, marker: Marker) -> Relocation:
        return find_relocation(self._settings, marker, self._noted.members, (await self._neighbours.ask()).answers)

    async def announce_address(self, marker: Marker) -> Mapping[str, str]:
        """Make the cluster know the member under today's raft address, if it is another than before.

        Waits for a quorum of the others, or until a majority has met whose members have moved as well: then the
        routes to them are returned. Raises FormationRefused if the address is another member's.
        """
        raft_address = self._settings.raft_address
        if self._noted.peer_url in ("", self._own.etcd_url(raft_address)):
            return {}
        logger.info("this member moves from {} to {}", self._noted.peer_url, raft_address)
        request = pb.UpdateMemberRequest(coordinator_id=self._settings.node_id, raft_address=raft_address)
        while True:
            round, refusals = await self._neighbours.ask(), dict[str, str]()
            for address in round.members:
                try:
                    await call_once(
                        self._own.dialler, address, lambda stub: stub.UpdateMember(request, timeout=MOVE_TIMEOUT_S)
                    )
                    return {}
                except FormationRefused:
                    raise
                except NotFound:
                    return {}  # removed meanwhile: etcd will say so
                except CloudlessError as error:
                    refusals[address] = error.message
            if routes := (await self._relocation(marker)).routes:
                return routes
            said = describe_failures(round, refusals, self._neighbours.unresolved())
            self._say(
                f"waiting for a quorum of the others to take {raft_address} for {self._noted.peer_url} ({said}); "
                "started once with its old address it could help them"
            )
            await asyncio.sleep(PAUSE_S)


def _find_replaced(marker: Marker, answers: Iterable[pb.GetFormationResponse]) -> str:
    """Return by whose word the cluster of our data was rebuilt without us, "" if by nobody's."""
    for answer in answers:
        if marker.cluster_id and marker.cluster_id in answer.supersedes:
            return f"cluster {marker.cluster_id} was rebuilt without this member, by the word of {answer.node_id}"
    return ""
