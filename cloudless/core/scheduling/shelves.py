"""All shelves: which rooms stand together, found by their site and size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cloudless.core.scheduling.shelf import Shelf, Size, share, size_of
from cloudless.core.scheduling.site import Site, places_of, site_of

if TYPE_CHECKING:
    from cloudless.core.scheduling.scratch import Room


class Shelves:
    """The shelves of each site; none is empty."""

    def __init__(self) -> None:
        self.by_site: dict[Site, list[Shelf]] = {}
        self._by_kind: dict[tuple[Site, Size], Shelf] = {}

    def fill(self, rooms: Iterable[Room], label_keys: tuple[str, ...]) -> None:
        """Put all rooms on shelves anew, told apart by these labels."""
        self.by_site, self._by_kind = {}, {}
        alike: dict[Shelf, list[Room]] = {}
        for room in rooms:
            alike.setdefault(self._assign(room, label_keys), []).append(room)
        for shelf, held in alike.items():
            shelf.fill(held)

    def add(self, room: Room, label_keys: tuple[str, ...]) -> None:
        """Put one more room on its shelf."""
        self._assign(room, label_keys).add(room)

    def remove(self, room: Room) -> None:
        """Take a room off its shelf."""
        shelf = room.shelf
        shelf.remove(room)
        if not shelf:
            del self._by_kind[shelf.site, shelf.size]
            self.by_site[shelf.site].remove(shelf)
            if not self.by_site[shelf.site]:
                del self.by_site[shelf.site]

    def _assign(self, room: Room, label_keys: tuple[str, ...]) -> Shelf:
        kind = site_of(room.node, room.info, room.labels, label_keys), size_of(room.info.capacity)
        shelf = self._by_kind.get(kind)
        if shelf is None:
            shelf = self._by_kind[kind] = Shelf(*kind)
            self.by_site.setdefault(shelf.site, []).append(shelf)
        room.shelf = shelf
        room.places = places_of(room.node.id, shelf.site)
        room.free_share = share(room.free, shelf.size)
        return shelf
