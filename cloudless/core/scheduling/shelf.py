"""The nodes of one site and size, fullest first: an order that holds for every ask.

How full a node is after a placement depends on what is asked, but nodes with the same cpu and memory lose
the same share to the same ask. So their order is kept once, and an ask takes the nodes of a shelf as they
stand, from the first that may have room. A reservation moves one node.

Equally full nodes stand in a ring by `ring_point` of their ids, and each seed begins elsewhere in it: equal
nodes are not always taken in the order of their names, and no ask needs to look at all of them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from zlib import crc32

from cloudless.core.model import Resources
from cloudless.core.scheduling.site import Site

if TYPE_CHECKING:
    from cloudless.core.scheduling.scratch import Room

WHOLE = 1_000_000
_RING = 1 << 32


def ring_point(text: str) -> int:
    """Return where a name or seed is in the ring, the same on every coordinator."""
    return crc32(text.encode())


def ring_distance(start: int, point: int) -> int:
    """Return how far on from `start` a point is; the nearest is taken first."""
    return (point - start) % _RING


def share(amount: Resources, capacity: Resources) -> int:
    """Return an amount's part of the cpu plus its part of the memory, in millionths.

    Whole numbers and rounded down: what fits into an amount never has the greater share, and no sum depends
    on the order of its terms. Nothing is nothing's part of everything.
    """
    cpu = amount.cpu_millicores * WHOLE // capacity.cpu_millicores if capacity.cpu_millicores else 0
    return cpu + (amount.memory_mb * WHOLE // capacity.memory_mb if capacity.memory_mb else 0)


class Shelf:
    """Rooms of one site with the same cpu and memory capacity, ordered by free share, ring point and id."""

    __slots__ = ("_rooms", "capacity", "site")

    def __init__(self, site: Site, capacity: Resources) -> None:
        self.site = site
        self.capacity = capacity
        self._rooms: list[tuple[int, int, str, Room]] = []

    def fill(self, rooms: Iterable[Room]) -> None:
        """Put all rooms of the shelf on it at once."""
        self._rooms = sorted((room.free_share, room.point, room.node.id, room) for room in rooms)

    def move(self, room: Room, free_share: int) -> None:
        """Put the room where it belongs after its free share has changed."""
        if free_share != room.free_share:
            del self._rooms[bisect_left(self._rooms, (room.free_share, room.point, room.node.id))]
            room.free_share = free_share
            insort(self._rooms, (free_share, room.point, room.node.id, room))

    def walk(self, requests: Resources, start: int) -> Iterator[Room]:
        """Yield the rooms that may hold `requests`, the best first; among equals, in the ring from `start` on.

        Rooms whose free share is less than the requests' cannot hold them and are left out. Rooms may be moved
        towards the front on the way, as reservations do: none is yielded twice.
        """
        rooms = self._rooms
        least = share(requests, self.capacity)
        while (first := bisect_left(rooms, (least,))) < len(rooms):
            level = rooms[first][0]
            least = level + 1
            equals = rooms[first : bisect_left(rooms, (least,), first)]
            turn = bisect_left(equals, (level, start))
            for entry in equals[turn:]:
                yield entry[3]
            for entry in equals[:turn]:
                yield entry[3]
