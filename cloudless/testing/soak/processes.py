"""Take a sample of every process of the cluster: what the kernel says of it, and what it says of itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from cloudless.cli.dev import web
from cloudless.cli.dev.layout import HOST, Plan
from cloudless.cli.dev.status import process_rows
from cloudless.testing.soak.ground import Ground
from cloudless.testing.soak.growth import Filling, Sample

_LOOKS = 3
_BETWEEN_LOOKS_S = 0.5
_COORDINATOR = "cloudless_coordinator_"
_OWN_FIGURES = {
    _COORDINATOR + "asyncio_tasks": "asyncio_tasks",
    _COORDINATOR + "agent_sessions": "agent_sessions",
    _COORDINATOR + "state_listeners": "state_listeners",
    _COORDINATOR + "state_revision": "state_revision",
    "cloudless_agent_asyncio_tasks": "asyncio_tasks",
}


class Sampler:
    """Takes samples, and knows whose memory is still filling."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._filling = Filling()

    async def sample_all(self) -> list[Sample]:
        """Return a sample of each living process: the least of a few looks, so that a passing request is no growth."""
        least: dict[str, Sample] = {}
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_BETWEEN_LOOKS_S)
            for sample in await _look(self._ground):
                known = least.get(sample.life, sample).figures
                figures = {name: min(value, known.get(name, value)) for name, value in sample.figures.items()}
                least[sample.life] = Sample(sample.at_s, sample.life, figures)
        return [self._filling.name_memory(sample) for sample in least.values()]


async def _look(ground: Ground) -> list[Sample]:
    samples = []
    for row in await asyncio.to_thread(process_rows, ground.table):
        figures = _from_kernel(row.pid) if row.pid else None
        if figures is None:
            continue
        if row.role != "etcd":
            figures |= await _from_itself(ground.table.layout.plan(row.name))
        else:
            # etcd's memory follows its database and the compactor's rhythm, not ours.
            del figures["rss_mb"]
        samples.append(Sample(time.monotonic(), f"{row.name} (pid {row.pid})", figures))
    return samples


def _from_kernel(pid: int) -> dict[str, float] | None:
    try:
        fds = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if "VmRSS" not in lines:
        return None
    return {"fds": fds, "threads": int(lines["Threads"]), "rss_mb": round(int(lines["VmRSS"].split()[0]) / 1024, 1)}


async def _from_itself(plan: Plan) -> dict[str, float]:
    try:
        _, text = await web.get(HOST, plan.metrics_port, "/metrics")
    except (OSError, TimeoutError, ValueError):
        return {}
    samples = dict(line.rpartition(" ")[::2] for line in text.splitlines() if not line.startswith("#"))
    return {figure: float(samples[name]) for name, figure in _OWN_FIGURES.items() if name in samples}
