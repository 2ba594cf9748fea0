"""Rounds of load, faults, healing and proof, until the time is over or someone says stop.

::

    settled ─► load runs, its minimum is reached ─► one fault, sometimes two at once ─► healed?
      ─► the minimum again ─► the load's history is judged ─► oracles ─► samples for growth ─► next round
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from cloudless.errors import CloudlessError
from cloudless.testing.load import Counts, Load, LoadReport, NotReached, recorded_load
from cloudless.testing.soak import workloads
from cloudless.testing.soak.faults import FAULTS, Injected
from cloudless.testing.soak.ground import Ground
from cloudless.testing.soak.growth import FILLED_REVISIONS
from cloudless.testing.soak.oracles import judge, look_before
from cloudless.testing.soak.processes import Sampler
from cloudless.testing.soak.report import Round, SoakReport

MEMORY_MINUTES_MIN = 10.0
"""A shorter soak does not judge the coordinators' memory: filling what is bounded would take longer than it."""
_HEAL_S = 60.0
_FIT_S = 60.0
_CLIENTS = 12
_ACKS_MIN = 30
_READS_MIN = 30
_LOAD_S = 30.0
_TWO_FAULTS_SHARE = 0.3
_RESTARTING = ("kill-coordinator", "kill-agent", "kill-many", "rolling-restart")
_CHANGING = ("scale", "update", "recreate")


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakSettings:
    """`kinds`: the faults to draw from; `rounds_max` 0: as many as there is time for."""

    minutes: float
    seed: int
    kinds: tuple[str, ...] = tuple(FAULTS)
    rounds_max: int = 0


class Soak:
    """One soak of a running cluster. `report` is complete after every round; `tell` is called then."""

    def __init__(self, ground: Ground, report: SoakReport, tell: Callable[[Round], None]) -> None:
        self._ground, self._report, self._tell = ground, report, tell
        self._sampler = Sampler(ground)
        self._last_kinds: list[str] = []

    async def run(self, settings: SoakSettings) -> None:
        """Return when the time is over or the cluster did not heal: another fault would prove nothing."""
        await workloads.deploy(self._ground)
        await self._sampler.sample_all()
        if settings.minutes >= MEMORY_MINUTES_MIN:
            await workloads.fill(self._ground, FILLED_REVISIONS)
        started_s = time.monotonic()
        if await self._ground.health.wait_settled(_FIT_S) is None:
            raise TimeoutError(f"not fit to begin with: {'; '.join(self._ground.health.findings())}")
        while time.monotonic() - started_s < settings.minutes * 60:
            done = await self._round(len(self._report.rounds) + 1, settings)
            self._report.rounds.append(done)
            self._report.minutes = (time.monotonic() - started_s) / 60
            self._report.samples += await self._sampler.sample_all()
            self._tell(done)
            if done.healed_s is None:
                self._report.stopped = "the cluster did not heal"
                return
            if len(self._report.rounds) == settings.rounds_max:
                break
        self._report.stopped = "done"

    async def _round(self, number: int, settings: SoakSettings) -> Round:
        ground = self._ground
        findings: list[str] = []
        injected: list[Injected] = []
        healed_s: float | None = None
        before = await look_before(ground)
        seed = ground.random.randrange(1, 2**32)
        addresses = ground.table.layout.api_addresses
        async with recorded_load(addresses, ground.etcd_addresses, clients=_CLIENTS, seed=seed) as load:
            counts = Counts()
            try:
                counts = await load.require(acks_min=_ACKS_MIN, reads_min=_READS_MIN, timeout_s=_LOAD_S)
                injected = await self._inject(settings.kinds)
                fault_s = time.monotonic()
                healed_s = await self._heal(fault_s, findings)
                counts = await load.require(acks_min=_ACKS_MIN, reads_min=_READS_MIN, timeout_s=_LOAD_S, since=counts)
            except (CloudlessError, TimeoutError, NotReached) as error:
                findings.append(f"{type(error).__name__}: {error}")
            history = await self._judge_history(load, findings)
        if healed_s is not None:
            emptied = frozenset().union(*(fault.emptied for fault in injected))
            try:
                findings += await judge(ground, before, emptied)
            except (CloudlessError, TimeoutError) as error:
                findings.append(f"could not be judged: {type(error).__name__}: {error}")
        return Round(
            number=number, injected=tuple(fault.text for fault in injected) or tuple(self._last_kinds),
            load=history.counts if history else counts, load_seed=seed, healed_s=healed_s, findings=tuple(findings),
        )  # fmt: skip

    async def _inject(self, kinds: tuple[str, ...]) -> list[Injected]:
        """Do one fault, or two at once that do not start the same process or change the same workload."""
        draw = self._ground.random
        first = draw.choice(kinds)
        others = [k for k in kinds if k not in (first, *_RESTARTING) and not (first in _CHANGING and k in _CHANGING)]
        self._last_kinds = [first]
        if others and draw.random() < _TWO_FAULTS_SHARE:
            self._last_kinds.append(draw.choice(others))
        done = await asyncio.gather(*(FAULTS[kind](self._ground) for kind in self._last_kinds), return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException):
                raise result
        return [result for result in done if isinstance(result, Injected)]

    async def _heal(self, fault_s: float, findings: list[str]) -> float | None:
        healed = await self._ground.health.wait_settled(_HEAL_S)
        if healed is None:
            findings += self._ground.health.findings()
            return None
        await workloads.settled(self._ground)
        return time.monotonic() - fault_s

    @staticmethod
    async def _judge_history(load: Load, findings: list[str]) -> LoadReport | None:
        try:
            history = await load.check()
        except CloudlessError as error:
            findings.append(f"the history could not be judged: {error.message}")
            return None
        findings += history.findings()
        return history
