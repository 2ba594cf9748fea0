"""What an agent's metrics are at a scrape: read from the parts that know, see `observability.metrics`.

Runs in the event loop, asked by the thread that answers the scrape. What is used is measured for it, as for anybody
else who asks (`usage`): a scrape waits for that, inside a time-out.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from dataclasses import dataclass

from cloudless.adapters.pki.certificate import read_certificates, validity_of
from cloudless.agent.contact import Contact
from cloudless.agent.credentials import NodeCredentials
from cloudless.agent.docker import DockerSupply
from cloudless.agent.links import Links
from cloudless.agent.reports import ReportBook
from cloudless.agent.room import DiskRoom
from cloudless.agent.tasks import TaskRunner
from cloudless.agent.usage import UsageMeter
from cloudless.core.lifecycle import is_final
from cloudless.core.model import NodeInfo, Resources
from cloudless.core.probing import Answer
from cloudless.core.usage import UNKNOWN
from cloudless.observability import tracing
from cloudless.observability.registry import Value
from cloudless.rpc.v1 import usage_pb2 as pb

USAGE_MAX_S = 2.0
FIRST_SESSIONS = 2


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts that are asked."""

    info: NodeInfo
    runner: TaskRunner
    links: Links
    reports: ReportBook
    contact: Contact
    room: DiskRoom
    docker: DockerSupply
    meter: UsageMeter
    credentials: NodeCredentials | None

    async def sample(self) -> Mapping[str, Value]:
        """Return a value for every declared metric; takes up to `USAGE_MAX_S`."""
        who: tuple[str, ...] = (self.info.id, self.info.zone, self.info.region, self.info.version)
        return {
            "up": 1.0,
            "info": {who: 1.0},
            **self._sessions(),
            **self._tasks(),
            **await self._usage(),
            "certificate_expiry_timestamp_seconds": self._certificates(),
            "asyncio_tasks": float(len(asyncio.all_tasks())),
            "trace_spans_dropped": float(tracing.dropped_total()),
        }

    def _sessions(self) -> dict[str, Value]:
        links = self.links
        return {
            "sessions": {"primary": float(links.primary is not None), "warm": float(links.count_warm())},
            "session_ends": {kind.value: float(count) for kind, count in links.ends.items()},
            "reconnects": float(max(0, links.dialled - FIRST_SESSIONS)),
            "contact_lost_seconds": self.contact.silence_s(),
            "reports_waiting": float(self.reports.pending_count),
        }

    def _tasks(self) -> dict[str, Value]:
        runner = self.runner
        live = [task for task in runner.tasks.values() if not is_final(task.state)]
        requested = sum((task.desired.spec.requests for task in live), Resources())
        probes: dict[str, float] = {}
        for (purpose, answer), count in runner.probes.results.items():
            result = "unknown" if answer is Answer.UNKNOWN else f"{purpose.value}-{answer.value}"
            probes[result] = probes.get(result, 0.0) + count
        return {
            "tasks": {state.value: float(count) for state, count in runner.count_states().items()},
            "task_starts": float(runner.steps.starts_total),
            "task_restarts": float(runner.steps.restarts_total),
            "probes": probes,
            "starts_refused": float(bool(self.room.fault or runner.journal_fault)),
            "docker_available": float(self.docker.offered),
            "capacity_cpu_cores": self.info.capacity.cpu_millicores / 1000,
            "capacity_memory_bytes": float(self.info.capacity.memory_mb << 20),
            "requested_cpu_cores": requested.cpu_millicores / 1000,
            "requested_memory_bytes": float(requested.memory_mb << 20),
        }

    async def _usage(self) -> dict[str, Value]:
        try:
            async with asyncio.timeout(USAGE_MAX_S):
                seen = await self.meter.measure()
        except TimeoutError:  # an executor that does not answer must not cost all other metrics
            nothing = pb.Usage(cpu_millicores=UNKNOWN, memory_bytes=UNKNOWN)
            seen = pb.NodeUsage(usage=nothing, disk_free_bytes=UNKNOWN, disk_total_bytes=UNKNOWN)
            seen.tasks.add(usage=nothing)
        return {
            "machine_cpu_cores": _cores(seen.usage.cpu_millicores),
            "machine_memory_bytes": float(seen.usage.memory_bytes),
            "tasks_cpu_cores": _cores(_sum([task.usage.cpu_millicores for task in seen.tasks])),
            "tasks_memory_bytes": float(_sum([task.usage.memory_bytes for task in seen.tasks])),
            "disk_free_bytes": float(seen.disk_free_bytes),
            "disk_size_bytes": float(seen.disk_total_bytes),
        }

    def _certificates(self) -> dict[str, float]:
        if self.credentials is None:
            return {}
        shown = self.credentials()
        return {"own": shown.validity.not_after_ms / 1000, "authority": _roots_end_ms(shown.roots_pem) / 1000}


def _cores(millicores: int) -> float:
    return float(UNKNOWN) if millicores == UNKNOWN else millicores / 1000


def _sum(amounts: list[int]) -> int:
    """Return the sum of what is known, UNKNOWN if there is something and nothing of it is known."""
    known = [amount for amount in amounts if amount != UNKNOWN]
    return sum(known) if known or not amounts else UNKNOWN


@functools.lru_cache(maxsize=4)
def _roots_end_ms(roots_pem: bytes) -> int:
    """Return when the CA ends that is good for longest: the others are on their way out."""
    return max(validity_of(root).not_after_ms for root in read_certificates(roots_pem, "the list of trusted CAs"))
