"""Where whoever has no identity yet is let in: what was named for that, or the hosts of the coordinators' seeds.

Seeds name the coordinators' API. The door for newcomers is another port of the same hosts, also where a name in DNS or
SRV records stand for them; the port of an SRV record is the API's.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloudless.adapters.discovery.lookup import Lookup
from cloudless.adapters.discovery.resolver import SeedResolver
from cloudless.core.discovery.addresses import join_address, split_address
from cloudless.core.discovery.seeds import parse_seed
from cloudless.ports import Clock


class Doors:
    """`given` are seeds of doors, as text; without any, the hosts of the seeds `coordinators` have one at `port`."""

    def __init__(
        self, given: Sequence[str], coordinators: Sequence[str], port: int, lookup: Lookup, clock: Clock
    ) -> None:
        self._port = 0 if given else port
        self._seeds = SeedResolver([parse_seed(text) for text in given or coordinators], lookup, clock)

    def current(self) -> list[str]:
        """Return the addresses by the last lookups."""
        found = [endpoint.address for endpoint in self._seeds.current()]
        if not self._port:
            return found
        return list(dict.fromkeys(join_address(split_address(address)[0], self._port) for address in found))

    async def find(self) -> list[str]:
        """Return the addresses, looked up anew where that is due; takes some seconds at most."""
        await self._seeds.refresh()
        return self.current()
