"""An agent's seeds where there is no DNS: addresses that never change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from cloudless.core.discovery.endpoints import Endpoint


class FixedSeeds:
    """Seeds that are addresses already."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self._endpoints = tuple(Endpoint(address) for address in addresses)

    def current(self) -> tuple[Endpoint, ...]:
        return self._endpoints

    async def refresh(self) -> bool:
        return False

    def pause_s(self) -> float:
        return math.inf

    def problems(self) -> Mapping[str, str]:
        return {}
