"""Entry point of the coordinator process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys

from loguru import logger

from cloudless.adapters.host.machine import allow_open_files
from cloudless.coordinator.api.caller import current_actor
from cloudless.coordinator.member_share import prefer_coordinator
from cloudless.coordinator.runtime import Coordinator
from cloudless.errors import CloudlessError, outcome_of
from cloudless.observability.fields import look_up
from cloudless.observability.logs import tell_end
from cloudless.observability.telling import begin_telling
from cloudless.observability.tracing import stop_tracing
from cloudless.observability.uncaught import watch_loop
from cloudless.settings import CoordinatorSettings, read_coordinator_settings
from etcd.find import Found, Search, find

# A large state is a million objects without cycles. Python's own thresholds (700, 10, 10) would have the collector walk
# them over and over while they are read, and stop the loop for it later; garbage with cycles is rare here.
COLLECT_AFTER = (20_000, 20, 100)


def main() -> int:
    """Run a coordinator configured by CLOUDLESS_* until SIGTERM or SIGINT; return the exit code."""
    gc.set_threshold(*COLLECT_AFTER)
    allow_open_files()
    try:
        settings = read_coordinator_settings()
        begin_telling("coordinator", settings)
        if settings.raise_priority and not prefer_coordinator(os.getpid()):
            logger.debug("this process may not go before others: that needs root or CAP_SYS_NICE")
        look_up("caller", current_actor)
        found = find(Search(allow_degraded=settings.allow_degraded_etcd))
        logger.info("etcd {} from {}: {}", found.version, found.source, found.judgement.reason)
        asyncio.run(_run(settings, found))
    except CloudlessError as error:
        tell_end(error)
        return outcome_of(type(error)).exit_code
    finally:
        stop_tracing()
    return 0


async def _run(settings: CoordinatorSettings, found: Found) -> None:
    coordinator = Coordinator(settings, found)  # gRPC's server belongs to the loop it is made in
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    watch_loop(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await coordinator.run(stop)


if __name__ == "__main__":
    sys.exit(main())
