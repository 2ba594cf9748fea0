"""Amounts of what a node has and a task asks for.

All amounts are whole numbers in one fixed unit, so that sums never round: a scheduler that adds and
subtracts reservations a million times ends where it began.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.model.evolving import Evolving


@dataclass(frozen=True, slots=True)
class Resources(Evolving):
    """Amounts of each resource; never negative in a capacity or a request."""

    cpu_millicores: int = 0
    memory_mb: int = 0
    storage_mb: int = 0
    bandwidth_mbps: int = 0
    gpus: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.cpu_millicores + other.cpu_millicores,
            self.memory_mb + other.memory_mb,
            self.storage_mb + other.storage_mb,
            self.bandwidth_mbps + other.bandwidth_mbps,
            self.gpus + other.gpus,
        )

    def __sub__(self, other: Resources) -> Resources:
        return Resources(
            self.cpu_millicores - other.cpu_millicores,
            self.memory_mb - other.memory_mb,
            self.storage_mb - other.storage_mb,
            self.bandwidth_mbps - other.bandwidth_mbps,
            self.gpus - other.gpus,
        )

    def fits_in(self, free: Resources) -> bool:
        """Return whether every amount asked for is at most what is free."""
        return (
            self.cpu_millicores <= free.cpu_millicores
            and self.memory_mb <= free.memory_mb
            and self.storage_mb <= free.storage_mb
            and self.bandwidth_mbps <= free.bandwidth_mbps
            and self.gpus <= free.gpus
        )

    def lacking(self, free: Resources) -> tuple[str, ...]:
        """Return the names of the resources of which more is asked than is free."""
        asked_free = (
            ("cpu", self.cpu_millicores, free.cpu_millicores),
            ("memory", self.memory_mb, free.memory_mb),
            ("storage", self.storage_mb, free.storage_mb),
            ("bandwidth", self.bandwidth_mbps, free.bandwidth_mbps),
            ("gpu", self.gpus, free.gpus),
        )
        return tuple(name for name, asked, has in asked_free if asked > has)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Evolving):
    """What one task may not exceed; 0 means no limit. `pids` counts its processes and threads."""

    cpu_millicores: int = 0
    memory_mb: int = 0
    pids: int = 0
