"""The agent's process: settings from the environment, logs to stderr, an exit code."""

from __future__ import annotations

import asyncio
import os
import sys

from cloudless.errors import StartupError, outcome_of
from cloudless.observability.logs import configure_logs
from cloudless.settings import read_agent_settings


def main() -> int:
    """Run an agent as CLOUDLESS_* variables say; return its exit code."""
    # A forked child of a gRPC process must not run gRPC's handlers: shims are spawned while it serves.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # Its C part writes every lost connection to stderr, past our own log.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        settings = read_agent_settings()
        configure_logs(settings.log_level)
        # Imported late: a wrong setting is told without waiting for gRPC.
        from cloudless.agent.runtime import run_agent

        asyncio.run(run_agent(settings))
    except StartupError as error:
        print(f"cloudless agent: {error}", file=sys.stderr)
        return outcome_of(type(error)).exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
