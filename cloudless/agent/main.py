"""The agent's process: settings from the environment, logs to stderr, an exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine

from cloudless.errors import StartupError, outcome_of
from cloudless.observability.logs import tell_end
from cloudless.observability.telling import begin_telling
from cloudless.observability.tracing import stop_tracing
from cloudless.observability.uncaught import watch_loop
from cloudless.settings import read_agent_settings


def main() -> int:
    """Run an agent as CLOUDLESS_* variables say; return its exit code."""
    # A forked child of a gRPC process must not run gRPC's handlers: shims are spawned while it serves.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # Its C part writes every lost connection to stderr, past our own log.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        settings = read_agent_settings()
        begin_telling("agent", settings)
        # Imported late: a wrong setting is told without waiting for gRPC.
        from cloudless.agent.runtime import run_agent

        asyncio.run(_run(run_agent(settings)))
    except StartupError as error:
        tell_end(error, "cloudless agent")
        return outcome_of(type(error)).exit_code
    finally:
        stop_tracing()
    return 0


async def _run(agent: Coroutine[None, None, None]) -> None:
    watch_loop(asyncio.get_running_loop())
    await agent


if __name__ == "__main__":
    sys.exit(main())
