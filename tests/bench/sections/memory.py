"""What each process of a cluster takes: idle, and after a minute of writes as fast as they go.

The largest of each kind counts. Resident memory, open file descriptors and threads are read from /proc.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from itertools import count
from pathlib import Path

from cloudless.cli.dev.table import Table, rss_mb
from cloudless.cli.methods import APPLY_WORKLOAD
from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest
from tests.architecture.tree import ROOT
from tests.bench.bench import Bench
from tests.bench.figures import Bar, Figure, at_most
from tests.bench.load import Step, run_load
from tests.bench.objects import create_workloads, manifest
from tests.bench.stage import dev_cluster

IN_FLIGHT = 256
WRITING_S = 60.0
_SETTLE_S = 5.0
_BARS_MB = {"coordinator": 100.0, "agent": 45.0, "etcd": 200.0}
_PHASES = {"idle": "idle", "busy": "after full-speed writes"}


async def measure(bench: Bench) -> list[Figure]:
    with dev_cluster((ROOT / "examples/hello.yaml").read_text(encoding="utf-8")) as cluster:
        async with AsyncExitStack() as stack:
            api, number = cluster.connect(stack), count(1)
            await asyncio.sleep(_SETTLE_S)
            taken = {"idle": _usage(cluster.table)}
            bench.say(_line(taken["idle"]))
            names = await create_workloads(api, "bench", IN_FLIGHT)

            def apply(caller: int) -> object:
                request = ApplyWorkloadRequest(manifest=manifest(names[caller], next(number)))
                return api.call(caller, APPLY_WORKLOAD, request)

            load = await run_load(Step(apply, IN_FLIGHT), WRITING_S * bench.scale)  # type: ignore[arg-type]
            taken["busy"] = _usage(cluster.table)
            bench.say(f"{load.rate_per_s:.0f} writes a second, then {_line(taken['busy'])}")
    writes = Figure("writes", f"writes meanwhile, {IN_FLIGHT} in flight", "1/s", (load.rate_per_s,))
    return [writes, *_figures(taken, full=bench.scale == 1)]


Usage = dict[str, list[tuple[float, int, int]]]
"""By kind of process: megabytes, descriptors and threads of each."""


def _usage(table: Table) -> Usage:
    found: Usage = {kind: [] for kind in _BARS_MB}
    for name, who in table.living().items():
        found["agent" if name.startswith("agent") else "coordinator"].append(_of(who.pid))
        etcd = table.etcd_of(name)
        if etcd:
            found["etcd"].append(_of(etcd.pid))
    return found


def _of(pid: int) -> tuple[float, int, int]:
    process = Path(f"/proc/{pid}")
    descriptors = threads = 0
    with suppress(OSError):
        descriptors, threads = len(os.listdir(process / "fd")), len(os.listdir(process / "task"))
    return rss_mb(pid), descriptors, threads


def _figures(taken: dict[str, Usage], *, full: bool) -> list[Figure]:
    figures = []
    for phase, usage in taken.items():
        for kind, each in usage.items():
            bar: Bar | None = at_most(_BARS_MB[kind]) if phase == "busy" and full else None
            text = f"largest {kind} {_PHASES[phase]}"
            figures.append(Figure(f"{kind}_{phase}_memory", text, "MB", (max(e[0] for e in each),), bar))
            figures.append(Figure(f"{kind}_{phase}_fds", f"{text}, descriptors", "", (max(e[1] for e in each),)))
            figures.append(Figure(f"{kind}_{phase}_threads", f"{text}, threads", "", (max(e[2] for e in each),)))
    return figures


def _line(usage: Usage) -> str:
    return ", ".join(f"{kind} {max(mb for mb, _, _ in each):.0f} MB" for kind, each in usage.items())
