"""`coordinator run` and `agent run`: start the servers of this package in this process.

They take their settings from CLOUDLESS_* variables, not from options, so that a unit file, a container and a
shell start them the same way.
"""

from __future__ import annotations

import importlib

import click

from cloudless.cli.lazy import LazyGroup


def _run(module: str) -> int:
    # By name: the command line and the servers are independent siblings, and the servers are slow to import.
    code = importlib.import_module(module).main()
    return code if isinstance(code, int) else 0


@click.group(cls=LazyGroup)
def coordinator() -> None:
    """A coordinator: one member of the control plane, with its own etcd."""


@coordinator.command(
    "run",
    epilog="Needed: CLOUDLESS_NODE_ID; and, while there is no data, how to get a cluster: CLOUDLESS_BOOTSTRAP=true, or "
    "CLOUDLESS_RAFT_JOIN_ADDR, or CLOUDLESS_BOOTSTRAP_EXPECT=3 with CLOUDLESS_RAFT_JOIN_ADDR. The README lists all.",
)
@click.pass_context
def run_coordinator(ctx: click.Context) -> None:
    """Run a coordinator in the foreground until SIGTERM or SIGINT."""
    ctx.exit(_run("cloudless.coordinator.main"))


@click.group(cls=LazyGroup)
def agent() -> None:
    """An agent: runs the tasks of one node."""


@agent.command(
    "run", epilog="Needed: CLOUDLESS_NODE_ID and CLOUDLESS_COORDINATOR_ADDR (HOST:PORT,…). The README lists all."
)
@click.pass_context
def run_agent(ctx: click.Context) -> None:
    """Run an agent in the foreground until SIGTERM or SIGINT."""
    ctx.exit(_run("cloudless.agent.main"))
