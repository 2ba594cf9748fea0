"""The nodes of one site and size, fullest first: an order that holds for every ask.

How full a node is after a placement depends on what is asked, but nodes of the same size lose the same share
to the same ask. So their order is kept once, and an ask takes the nodes of a shelf as they stand, from the
first that may have room. A reservation moves one node. Sizes are round numbers: no two machines have exactly
the same memory, and with a shelf for each node nothing would be won.

Equally full nodes stand in a ring by `ring_point` of their ids, and each seed begins elsewhere in it: equal
nodes are not always taken in the order of their names, and no ask needs to look at all of them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from cloudless.core.model import Resources
from cloudless.core.scheduling.site import Site

if TYPE_CHECKING:
    from cloudless.core.scheduling.scratch import Room

WHOLE = 1_000_000
_Entry = tuple[int, int, str, "Room"]
_RING = 1 << 32
_SIZE_BITS = 4


def ring_point(text: str) -> int:
    """Return where a name or seed is in the ring, the same on every coordinator."""
    return crc32(text.encode())


def ring_distance(start: int, point: int) -> int:
    """Return how far on from `start` a point is; the nearest is taken first."""
    return (point - start) % _RING


class Size(NamedTuple):
    """A node's cpu and memory, rounded down by less than an eighth."""

    cpu_millicores: int
    memory_mb: int


def size_of(capacity: Resources) -> Size:
    return Size(_rounded(capacity.cpu_millicores), _rounded(capacity.memory_mb))


def share(amount: Resources, size: Size) -> int:
    """Return an amount's part of the cpu plus its part of the memory, in millionths.

    Whole numbers and rounded down: what fits into an amount never has the greater share, and no sum depends
    on the order of its terms. Of a node without cpu or memory no share is taken.
    """
    cpu = amount.cpu_millicores * WHOLE // size.cpu_millicores if size.cpu_millicores else 0
    return cpu + (amount.memory_mb * WHOLE // size.memory_mb if size.memory_mb else 0)


def _rounded(amount: int) -> int:
    surplus_bits = max(0, amount.bit_length() - _SIZE_BITS)
    return amount >> surplus_bits << surplus_bits


class Shelf:
    """Rooms of one site and size, ordered by free share, ring point and id."""

    __slots__ = ("_rooms", "site", "size")

    def __init__(self, site: Site, size: Size) -> None:
        self.site = site
        self.size = size
        self._rooms: list[_Entry] = []

    def fill(self, rooms: Iterable[Room]) -> None:
        """Put all rooms of the shelf on it at once."""
        self._rooms = sorted((room.free_share, room.point, room.node.id, room) for room in rooms)

    def __bool__(self) -> bool:
        return bool(self._rooms)

    def add(self, room: Room) -> None:
        """Put one more room where it belongs."""
        insort(self._rooms, (room.free_share, room.point, room.node.id, room))

    def remove(self, room: Room) -> None:
        """Take a room off."""
        del self._rooms[bisect_left(self._rooms, (room.free_share, room.point, room.node.id))]

    def move(self, room: Room, free_share: int) -> None:
        """Put the room where it belongs after its free share has changed."""
        if free_share != room.free_share:
            self.remove(room)
            room.free_share = free_share
            self.add(room)

    def rooms(self) -> list[Room]:
        return [room for _, _, _, room in self._rooms]

    def walk(self, requests: Resources, start: int, *, emptiest_first: bool = False) -> Iterator[Room]:
        """Yield the rooms that may hold `requests`, fullest first; among equals, in the ring from `start` on.

        Rooms whose free share is less than the requests' cannot hold them and are left out. The order is that of
        the time when the walk begins: a room that is moved on the way is not met again.
        """
        rooms = self._rooms[bisect_left(self._rooms, (share(requests, self.size),)) :]
        return _walk_down(rooms, start) if emptiest_first else _walk_up(rooms, start)


def _walk_up(rooms: list[_Entry], start: int) -> Iterator[Room]:
    """Yield rooms by level, fullest first; thousands are asked for by each workload, hence without another call."""
    first = 0
    while first < len(rooms):
        level = rooms[first][0]
        end = first + 1
        if end < len(rooms) and rooms[end][0] == level:
            end = bisect_left(rooms, (level + 1,), end)
            turn = bisect_left(rooms, (level, start), first, end)
            for index in chain(range(turn, end), range(first, turn)):
                yield rooms[index][3]
        else:
            yield rooms[first][3]
        first = end


def _walk_down(rooms: list[_Entry], start: int) -> Iterator[Room]:
    """Yield rooms by level, emptiest first."""
    end = len(rooms)
    while end:
        level = rooms[end - 1][0]
        first = bisect_left(rooms, (level,), 0, end)
        turn = bisect_left(rooms, (level, start), first, end)
        for index in chain(range(turn, end), range(first, turn)):
            yield rooms[index][3]
        end = first
