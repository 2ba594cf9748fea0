"""One simulated agent: the product's sessions on top of whatever follows its assignments."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, cast

from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.system import SystemClock
from cloudless.agent.assignments import Gate, TaskFollower
from cloudless.agent.config import AgentLimits, build_node_info
from cloudless.agent.dialling import grpc_dial
from cloudless.agent.journal import Head, Journal
from cloudless.agent.links import Links
from cloudless.agent.reports import ReportBook
from cloudless.agent.session import SessionParts
from cloudless.core.model import Resources
from cloudless.settings import AgentSettings
from cloudless.testing.fixed_seeds import FixedSeeds
from cloudless.testing.fleet.turns import Turns

if TYPE_CHECKING:
    from cloudless.core.localtask import LocalTask

CAPACITY = Resources(cpu_millicores=64_000, memory_mb=64_000, storage_mb=64_000, bandwidth_mbps=10_000)
_LIMITS = AgentLimits()

BuildTasks = Callable[[AgentSettings, ReportBook], TaskFollower]


class ForgetfulJournal:
    """A journal that keeps nothing: a simulated agent lives once."""

    async def save(self, task: LocalTask) -> None: ...

    async def delete(self, task_id: str) -> None: ...

    async def save_head(self, head: Head) -> None: ...


class FleetAgent:
    """Keeps sessions to `coordinators` (addresses) while `links.run()` runs. `build_tasks` makes what runs its tasks.

    Set `dialler` before running it if agents have to prove who they are. Agents of one process share their `turns`.
    """

    def __init__(
        self,
        name: str,
        coordinators: tuple[str, ...],
        zone: str,
        dialler: Dialler,
        build_tasks: BuildTasks,
        turns: Turns | None = None,
    ) -> None:
        self.name, self.dialler = name, dialler
        settings = AgentSettings(
            node_id=name, coordinators=coordinators, zone=zone, capacity=CAPACITY, listen_address="127.0.0.1:1",
            data_dir=Path("/nonexistent"),
        )  # fmt: skip
        journal, reports = cast("Journal", ForgetfulJournal()), ReportBook()
        head = Head(incarnation=time.time_ns() // 1_000_000, agent_id=name)
        info = build_node_info(settings, ("process",), name, {})
        self.refused: Counter[str] = Counter()
        self.round_trips_s: list[float] = []
        self.tasks = build_tasks(settings, reports)
        turns = turns or Turns()
        self.links = Links(
            FixedSeeds(coordinators),
            SessionParts(
                info=lambda: info,
                limits=_LIMITS,
                clock=SystemClock(),
                random=SystemRandom(),
                dial=lambda address: turns.dial(grpc_dial(self.dialler, _LIMITS), address),
                gate=Gate(head, journal, name),
                runner=self.tasks,
                reports=reports,
                on_round_trip=self._on_round_trip,
                on_refused=self._on_refused,
                on_resent=lambda count: None,
            ),
        )

    def _on_round_trip(self, seconds: float) -> None:
        self.round_trips_s[:] = [seconds]

    def _on_refused(self, kind: str) -> None:
        self.refused[kind] += 1
