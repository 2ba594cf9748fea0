"""A link between coordinators: up while the one that is meant answers, lost when it no longer does."""

from __future__ import annotations

import asyncio

from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.peer_stream import LinkBroken
from cloudless.coordinator.peers import Link, News, PeerSettings
from cloudless.coordinator.progress import ProgressTable
from cloudless.rpc.v1 import peer_pb2 as pb
from cloudless.testing.virtual_time import VirtualClock, eventually, running, virtually

CLOCK = VirtualClock()


class Door:
    """An address: `who` answers there, nobody if that is empty."""

    def __init__(self, who: str) -> None:
        self.who = who

    def dial(self, address: str) -> Stream:
        return Stream(self)


class Stream:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._answers: asyncio.Queue[pb.PeerBeatAck] = asyncio.Queue()
        self.ended = asyncio.Event()

    async def write(self, beat: pb.PeerBeat) -> None:
        if not self._door.who:
            raise LinkBroken("nobody listens")
        self._answers.put_nowait(pb.PeerBeatAck(coordinator_id=self._door.who, sequence=beat.sequence))

    async def read(self) -> pb.PeerBeatAck:
        return await self._answers.get()

    async def close(self) -> None:
        return


def link_through(door: Door) -> Link:
    news = News("c1", HeardTable(CLOCK), ProgressTable(), str, CLOCK, 2.0)
    return Link("c2", "lb:1", news, CLOCK, lambda: None, PeerSettings(), door.dial)


@virtually
async def test_an_address_that_leads_to_somebody_else_makes_nobody_look_alive_and_accuses_nobody() -> None:
    door = Door("c1")
    link = link_through(door)
    async with running(link.run()):
        await asyncio.sleep(30)
        assert not link.up
        door.who = "c2"
        await eventually(lambda: link.up)
        door.who = "c3"
        await eventually(lambda: not link.up)
        await asyncio.sleep(30)
        assert not link.up
        assert not link.lost
        door.who = ""
        await asyncio.sleep(30)
        assert not link.lost


@virtually
async def test_a_link_that_was_up_is_lost_when_nobody_answers_any_more() -> None:
    door = Door("c2")
    link = link_through(door)
    async with running(link.run()):
        await eventually(lambda: link.up)
        door.who = ""
        assert await eventually(lambda: link.lost) < 2.0
        door.who = "c2"
        await eventually(lambda: link.up and not link.lost)
