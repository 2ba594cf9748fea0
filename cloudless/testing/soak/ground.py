"""What a soak stands on: the cluster's processes, ways to ask it, and who must live through it all.

One coordinator and one agent are never killed or stopped for good, so that their growth can be followed from the
first round to the last; they are frozen, cut from their etcd, deposed and drained like the others.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from cloudless.adapters.member.pidfile import Identity
from cloudless.cli.aio import AsyncClient
from cloudless.cli.dev.health import Health
from cloudless.cli.dev.layout import HOST
from cloudless.cli.dev.table import Table, send
from cloudless.errors import CloudlessError

POLL_S = 0.1


@dataclass
class Ground:
    """The cluster under soak. `random` decides everything that is left to chance."""

    table: Table
    client: AsyncClient
    clients: dict[str, AsyncClient]
    health: Health
    random: random.Random

    @property
    def coordinators(self) -> list[str]:
        return [plan.name for plan in self.table.layout.coordinators]

    @property
    def agents(self) -> list[str]:
        return [plan.name for plan in self.table.layout.agents]

    @property
    def survivors(self) -> tuple[str, str]:
        return self.coordinators[0], self.agents[0]

    @property
    def etcd_addresses(self) -> list[str]:
        return [f"{HOST}:{plan.etcd_port}" for plan in self.table.layout.coordinators]

    def mortal(self, names: list[str]) -> str:
        """Return one of them that may be killed."""
        return self.random.choice([name for name in names if name not in self.survivors])

    async def find(self, name: str) -> Identity | None:
        """Return a process by name; `NAME/etcd` is a coordinator's etcd."""
        owner, slash, _ = name.partition("/")
        if slash:
            return await asyncio.to_thread(self.table.etcd_of, owner)
        return (await asyncio.to_thread(self.table.living)).get(name)

    async def signal(self, name: str, number: signal.Signals) -> bool:
        """Signal a process; return whether it was there."""
        who = await self.find(name)
        return who is not None and send(who, number)

    async def gone(self, name: str, timeout_s: float = 20.0) -> None:
        await until(lambda: self._is_gone(name), f"{name} has ended", timeout_s)

    async def _is_gone(self, name: str) -> bool:
        return await self.find(name) is None

    async def start(self, name: str) -> None:
        await self.gone(name)
        await asyncio.to_thread(self.table.start, name)


async def until(look: Callable[[], Awaitable[bool]], what: str, timeout_s: float) -> None:
    """Poll until `look` says yes; a cluster's "not now" is looked past. Raises TimeoutError naming `what`."""
    last = ""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    if await look():
                        return
                except CloudlessError as error:
                    last = f" (last: {error.message})"
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise TimeoutError(f"{what}: not within {timeout_s:g} s{last}") from error


@asynccontextmanager
async def ground_of(table: Table, seed: int) -> AsyncIterator[Ground]:
    """Open the ways to ask the cluster; close them at the end."""
    async with AsyncExitStack() as stack:
        addresses = dict(zip((c.name for c in table.layout.coordinators), table.layout.api_addresses, strict=True))
        clients = {name: await stack.enter_async_context(AsyncClient((a,), 5.0)) for name, a in addresses.items()}
        client = await stack.enter_async_context(AsyncClient(table.layout.api_addresses, 10.0))
        yield Ground(table, client, clients, Health(table.layout, clients), random.Random(seed))
