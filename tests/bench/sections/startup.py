"""How long one waits: for a coordinator that holds a large state, for a whole cluster, for the command line."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.children import start_module
from tests.bench.figures import Figure, at_most
from tests.bench.members import bare_members
from tests.bench.population import populate
from tests.bench.stage import dev_cluster

TASKS = 100_000
_STARTS_MAX = 3
_CLI_RUNS = 20
_COMMANDS = {"help": ("--help",), "version": ("version",)}


async def measure(bench: Bench) -> list[Figure]:
    figures = await _load(bench)
    if not bench.profile_dir:
        figures += _cluster(bench)
        figures += _commands(bench)
    return figures


async def _load(bench: Bench) -> list[Figure]:
    tasks = bench.size(TASKS)
    took_s, memory_mb = [], []
    with bare_members(1) as members:
        await members.leader()
        await populate(members.endpoints[0], tasks)
        bench.say(f"{tasks:,} tasks written")
        for _ in range(min(bench.rounds, _STARTS_MAX)):
            async with AsyncExitStack() as stack:
                endpoint = members.endpoints[0]
                child = await start_module(
                    stack, "tests.bench.loading", endpoint, profile_to=bench.profile_file("loading")
                )
                told = await child.read_json()
            took_s.append(told["load_s"])
            memory_mb.append(told["rss_mb"])
            bench.say(f"loaded {told['entries']:,} entries in {told['load_s']:.2f} s, {told['rss_mb']:.0f} MB")
    text = f"a fresh coordinator's state with {tasks:,} tasks"
    return [
        # Fewer tasks say nothing about the bar.
        Figure("load", f"{text}, ready after", "s", tuple(took_s), at_most(5.0) if tasks == TASKS else None),
        Figure("load_memory", f"{text}, memory of that process", "MB", tuple(memory_mb)),
    ]


def _cluster(bench: Bench) -> list[Figure]:
    took_s = []
    for _ in range(min(bench.rounds, _STARTS_MAX)):
        with dev_cluster() as cluster:
            took_s.append(cluster.started_s)
        bench.say(f"dev cluster ready after {took_s[-1]:.1f} s")
    return [Figure("dev_up", "`cloudless dev up`: three coordinators and three nodes ready after", "s", tuple(took_s))]


def _commands(bench: Bench) -> list[Figure]:
    program = str(Path(sys.executable).parent / "cloudless")
    figures = [Figure("python", "an empty Python program", "s", _times_s(bench, [sys.executable, "-c", ""]))]
    for name, words in _COMMANDS.items():
        text = f"`cloudless {' '.join(words)}`"
        figures.append(Figure(f"cli_{name}", text, "s", _times_s(bench, [program, *words]), at_most(0.25)))
    return figures


def _times_s(bench: Bench, argv: list[str]) -> tuple[float, ...]:
    found = []
    for _ in range(bench.size(_CLI_RUNS)):
        started_s = time.perf_counter()
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        found.append(time.perf_counter() - started_s)
    return tuple(found)
