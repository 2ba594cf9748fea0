"""Run one seed: a phase with faults in which nothing may be wrong, then healing, then all must be well in time.

`run_seed` never raises for what the cluster did: the result says what was wrong, and with the seed it can be run
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from loguru import logger

from cloudless.testing.sim.checkers import Checker, Violation, checkers_for
from cloudless.testing.sim.convergence import find_trouble
from cloudless.testing.sim.faults import Faults
from cloudless.testing.sim.happenings import Looked
from cloudless.testing.sim.loop import START_S, Spinning
from cloudless.testing.sim.operators import Operator
from cloudless.testing.sim.options import Options
from cloudless.testing.sim.world import World

CONVERGE_S = 90.0
MEMBERS_CONVERGE_S = 90.0
LOOK_PERIOD_S = 0.25
QUIET_S = 1.0
"""All must be as it should be for so long, without a break."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a seed. `problem` is empty if all was well; `checker` names the idea that was broken."""

    options: Options
    checker: str
    problem: str
    trace_hash: str
    trace_tail: tuple[str, ...]
    virtual_s: float
    real_s: float
    callbacks: int
    writes: int
    converged_s: float

    @property
    def failed(self) -> bool:
        return bool(self.problem)


class NotConverged(Exception):
    """The cluster was healed and is still not as it should be; the message says what is missing."""


def run_seed(options: Options, *, keep_trace: bool = False, checkers: Sequence[type[Checker]] = ()) -> Result:
    """Run the seed of `options`; without `checkers` all that there are for these watch it."""
    with collecting_later():
        return _run_seed(options, keep_trace, checkers or checkers_for(options))


def _run_seed(options: Options, keep_trace: bool, checkers: Sequence[type[Checker]]) -> Result:
    began_s = time.perf_counter()
    logger.disable("cloudless")
    world = World(options, keep_trace=keep_trace)
    checker = problem = ""
    converged_s = 0.0
    try:
        converged_s = world.loop.run(_play(world, checkers), START_S + options.safety_s + _converge_s(options) + 60)
    except Violation as violation:
        checker, problem = violation.checker, str(violation)
    except NotConverged as error:
        checker, problem = "Convergence", str(error)
    except Spinning as error:
        checker, problem = "Progress", str(error)
    world.dispose()
    return Result(
        options=options,
        checker=checker,
        problem=problem,
        trace_hash=world.trace.hash,
        trace_tail=tuple(world.trace.lines),
        virtual_s=world.loop.now_s - START_S,
        real_s=time.perf_counter() - began_s,
        callbacks=world.loop.callbacks,
        writes=world.host.memory.revision,
        converged_s=converged_s,
    )


@contextlib.contextmanager
def collecting_later() -> Iterator[None]:
    """Run seeds without the collector, which would end things at moments that differ between runs.

    What a run left unfinished is collected at the end, unheard.
    """
    if not gc.isenabled():
        yield
        return
    heard = sys.unraisablehook
    gc.disable()
    try:
        yield
    finally:
        sys.unraisablehook = lambda unraisable: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
        sys.unraisablehook = heard
        gc.enable()


async def _play(world: World, checkers: Sequence[type[Checker]]) -> float:
    options = world.options
    watching = [checker(world) for checker in checkers]
    broken: list[Violation] = []
    told: dict[type[object], list[Callable[[object], None]]] = {}

    def listen(happening: object) -> None:
        kind = type(happening)
        if kind not in told:
            told[kind] = [tell for checker in watching if (tell := checker.listener(kind)) is not None]
        for tell in told[kind]:
            try:
                tell(happening)
            except Violation as violation:
                broken.append(violation)

    def look() -> None:
        if broken:
            raise broken[0]
        _refuse_bugs(world)
        operator.check()
        if options.membership or options.certificates or options.rollouts:
            world.tell(Looked())

    world.listeners.append(listen)
    sweeping = asyncio.ensure_future(world.host.sweep())
    for name in (*world.coordinator_ids, *world.node_ids):
        world.start(name)
    faults = Faults(world, Random(f"faults-{options.seed}"))
    running = [asyncio.ensure_future(world.users.run(options.operation_pause_s)), asyncio.ensure_future(faults.run())]
    operator = Operator(world, Random(f"operator-{options.seed}"))
    if options.membership or options.certificates:
        running.append(asyncio.ensure_future(operator.run()))
    helping = [asyncio.ensure_future(operator.help())] if options.certificates else []
    ends_s = world.loop.now_s + options.safety_s
    while world.loop.now_s < ends_s:
        await asyncio.sleep(LOOK_PERIOD_S)
        look()
    for task in running:
        task.cancel()
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    faults.heal()
    converged_s = await _converge(world, operator, look)
    for checker in watching:
        checker.finish()
    for task in (sweeping, *helping):
        task.cancel()
    return converged_s


async def _converge(world: World, operator: Operator, look: Callable[[], None]) -> float:
    """Return how long the healed cluster took until all was as wanted, and stayed so. Raises NotConverged."""
    options = world.options
    settled = [asyncio.ensure_future(world.users.settle())]
    if options.membership or options.certificates:
        settled.append(asyncio.ensure_future(operator.settle()))
    healed_s, converge_s = world.loop.now_s, _converge_s(options)
    quiet_since_s = world.loop.now_s
    while world.loop.now_s - quiet_since_s < QUIET_S:
        await asyncio.sleep(LOOK_PERIOD_S)
        look()
        waiting = [task for task in settled if not task.done() or task.result()]
        trouble = "users or operators wait" if waiting else find_trouble(world)
        if trouble:
            quiet_since_s = world.loop.now_s
        if world.loop.now_s - healed_s > converge_s:
            raise NotConverged(f"{converge_s:.0f} s after healing: {trouble}")
    return quiet_since_s - healed_s


def _converge_s(options: Options) -> float:
    """Return how long a healed cluster may take: members come and go one after the other."""
    return CONVERGE_S + (MEMBERS_CONVERGE_S if options.membership is not None else 0.0)


def _refuse_bugs(world: World) -> None:
    """Raise Violation if a process ended by itself or a callback failed."""
    for life in world.lives():
        if life.error is not None:
            raise Violation("Alive", f"{life.id} ended by itself: {life.error!r}")
    if world.loop.complaints:
        raise Violation("Alive", world.loop.complaints[0])
