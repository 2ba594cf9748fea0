"""`scripts/soak`: raise a cluster of its own, soak it, take it down. Stopped at any time, it leaves no process behind.

The cluster is raised and taken down by the code of `cloudless dev up` and `dev down`. Exit status: 0 passed, 1 failed
or nothing proved, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from loguru import logger

from cloudless.cli.dev.down import take_down
from cloudless.cli.dev.foreground import Stop, ignore_signals, raise_on_signals
from cloudless.cli.dev.layout import build_layout
from cloudless.cli.dev.preflight import require_ready
from cloudless.cli.dev.progress import Progress
from cloudless.cli.dev.table import Table
from cloudless.cli.dev.up import Start, Starter
from cloudless.errors import CloudlessError, PortInUse
from cloudless.testing.soak.faults import FAULTS
from cloudless.testing.soak.ground import ground_of
from cloudless.testing.soak.report import Round, SoakReport
from cloudless.testing.soak.soak import Soak, SoakSettings

_OFFSETS = (1_000, 20_000)
"""Added to the dev cluster's ports; all stay below those the kernel gives to outgoing connections."""
_OFFSET_TRIES = 50
_START_S = 180.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str] | None = None) -> int:
    """Run one soak and return the exit status."""
    wanted = _parse(arguments)
    settings = SoakSettings(
        minutes=wanted.minutes, seed=wanted.seed or random.randrange(1, 2**32), kinds=tuple(wanted.only or FAULTS),
        rounds_max=wanted.rounds,
    )  # fmt: skip
    report = SoakReport(settings.seed, 0.0)
    logger.disable("cloudless")  # the state we read afresh ourselves would tell of it each time
    # Before anything runs, so that a stop at any moment passes through the clean-up.
    raise_on_signals()
    state_dir = wanted.state_dir or Path(tempfile.mkdtemp(prefix="cloudless-soak-"))
    progress = Progress()
    progress.say(f"soak with seed {settings.seed}; data and logs under {state_dir}")
    table = None
    try:
        table = _find_table(state_dir)
        Starter(table, progress, Start("", _START_S)).run()
        asyncio.run(_soak(table, settings, report, wanted.json, progress))
    except Stop as stop:
        report.stopped = f"stopped by {stop}"
    except (CloudlessError, TimeoutError) as error:
        report.stopped = "broke off"
        report.problems.append(f"{type(error).__name__}: {error}")
    except Exception as error:
        report.stopped = "broke off"
        report.problems.append(f"the soak itself has a fault: {error!r}")
        raise
    finally:
        ignore_signals()
        _end(table, report, progress)
        report.write(wanted.json)
        print(report.text(), flush=True)
    if report.findings():
        progress.say(f"data and logs are kept under {state_dir}")
        return 1
    if wanted.state_dir is None:
        shutil.rmtree(state_dir)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/soak", description="Break a cluster of its own at random, and judge it.")
    parser.add_argument("--minutes", type=float, required=True, help="how long to go on with new rounds")
    parser.add_argument("--seed", type=int, default=0, help="what is done, in which order; 0: another each time")
    parser.add_argument("--json", type=Path, help="write the report there, anew after every round")
    parser.add_argument("--rounds", type=int, default=0, help="at most so many rounds")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), help="only this fault (repeat for more)")
    parser.add_argument("--state-dir", type=Path, help="keep data and logs there instead of a temporary directory")
    return parser.parse_args(arguments)


def _find_table(state_dir: Path) -> Table:
    """Return the table of a cluster whose ports are all free just now. Raises PortInUse."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    tries_left = _OFFSET_TRIES
    while True:
        table = Table(build_layout(state_dir, random.randrange(*_OFFSETS)))
        try:
            require_ready(table)
            return table
        except PortInUse:
            tries_left -= 1
            if not tries_left:
                raise


async def _soak(
    table: Table, settings: SoakSettings, report: SoakReport, json_file: Path | None, progress: Progress
) -> None:
    """Soak until the time is over. Raises Stop on a signal, after everything it does was ended in order."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    told: list[signal.Signals] = []

    def stop(number: int, _: FrameType | None) -> None:
        # Not by an exception in the middle of whatever runs: the loop's own cleaning up would be broken off.
        told.append(signal.Signals(number))
        if len(told) == 1:
            loop.call_soon_threadsafe(task.cancel)

    def tell(done: Round) -> None:
        progress.say(f"{time.strftime('%H:%M:%S')} {done}")
        for finding in done.findings:
            progress.say(f"      FOUND {finding}")
        report.write(json_file)

    for number in _SIGNALS:
        signal.signal(number, stop)
    try:
        async with ground_of(table, settings.seed) as ground:
            await Soak(ground, report, tell).run(settings)
    except asyncio.CancelledError:
        if not told:
            raise
        raise Stop(told[0].name) from None


def _end(table: Table | None, report: SoakReport, progress: Progress) -> None:
    try:
        if table is not None:
            take_down(table, progress)
    except CloudlessError as error:
        report.problems.append(f"not taken down: {error.message}")


if __name__ == "__main__":
    sys.exit(main())
