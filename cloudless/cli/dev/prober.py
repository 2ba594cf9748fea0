"""Ask every replica of a workload over HTTP, all the time: what a user of the service would notice."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from cloudless.cli.dev import web

_PERIOD_S = 0.1
_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One request; `failure` is "" if it was answered with 200."""

    at_s: float
    address: str
    failure: str


class Prober:
    """One loop per address; `probes` only grows."""

    def __init__(self) -> None:
        self._loops: dict[tuple[str, int], asyncio.Task[None]] = {}
        self.probes: list[Probe] = []

    async def aim(self, addresses: set[tuple[str, int]]) -> None:
        """Probe these addresses from now on, and no others."""
        for address in [a for a in self._loops if a not in addresses]:
            loop = self._loops.pop(address)
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
        for address in addresses - self._loops.keys():
            self._loops[address] = asyncio.create_task(self._probe_on(*address))

    async def _probe_on(self, host: str, port: int) -> None:
        while True:
            at_s = time.monotonic()
            self.probes.append(Probe(at_s, f"{host}:{port}", await _ask(host, port)))
            await asyncio.sleep(_PERIOD_S)


async def _ask(host: str, port: int) -> str:
    try:
        status, _ = await web.get(host, port, timeout_s=_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError) as error:
        return str(error) or type(error).__name__
    return "" if status == 200 else f"status {status}"
