"""`workload wait`: return when a workload is rolled out, has done its job, or is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudless.cli.options import Command, current

if TYPE_CHECKING:
    from cloudless.cli.client import Client

_WAIT_S = 120.0


@click.command("wait", cls=Command)
@click.argument("name")
@click.option(
    "--for",
    "goal",
    type=click.Choice(["rolled-out", "completed", "gone"]),
    default="rolled-out",
    show_default=True,
    help="rolled-out: the newest template is everywhere and ready; completed: every task has ended well (a job).",
)
@click.option("--wait-timeout", default=_WAIT_S, show_default=True, metavar="SECONDS", help="For how long at most.")
def wait(name: str, goal: str, wait_timeout: float) -> None:
    """Wait for workload NAME; exit code 10 if what is waited for will not come, 3 if it did not come in time."""
    from cloudless.cli.gone import wait_gone
    from cloudless.cli.rollouts import wait_rolled_out

    options = current()
    namespace, name = options.target(name)
    with options.client() as client:
        if goal == "gone":
            wait_gone(client, namespace, name, wait_timeout)
            click.echo(f"workload/{name} is gone", err=True)
        elif goal == "completed":
            click.echo(
                f"workload/{name} is completed: {_wait_completed(client, namespace, name, wait_timeout)}", err=True
            )
        else:
            click.echo(
                f"workload/{name} is rolled out: {wait_rolled_out(client, namespace, name, wait_timeout)}", err=True
            )


def _wait_completed(client: Client, namespace: str, name: str, timeout_s: float) -> str:
    """Wait until every slot's task has ended well; return how things stand then.

    Raises InvalidSpec if tasks are started again whenever they end, RolloutFailed if one failed for good, StoreTimeout.
    """
    from cloudless.cli.methods import GET_WORKLOAD
    from cloudless.cli.rollouts import counts
    from cloudless.cli.waiting import wait_for
    from cloudless.errors import InvalidSpec, Problem, RolloutFailed
    from cloudless.rpc.v1.objects_pb2 import RestartCondition
    from cloudless.rpc.v1.workload_pb2 import GetWorkloadRequest

    def look() -> tuple[bool, str, str]:
        found = client.call(GET_WORKLOAD, GetWorkloadRequest(namespace=namespace, name=name)).workload
        condition, seen = found.record.spec.restart_policy.condition, found.summary
        if RestartCondition.Name(condition).endswith("_ALWAYS"):
            never = (
                "is ALWAYS: its tasks are started again whenever they end; for those that end it is ON_FAILURE or NEVER"
            )
            raise InvalidSpec([Problem("restartPolicy.policy", never)])
        if seen.state == "FAILED":
            raise RolloutFailed(
                f"{namespace}/{name}: tasks failed and are not to run again ({counts(seen)})",
                hint=f"`cloudless task list -w {name} --all`, `cloudless workload logs {name}`",
            )
        return (
            seen.state == "COMPLETED",
            counts(seen),
            f"{namespace}/{name}: {seen.completed} of {seen.desired} completed",
        )

    return wait_for(look, timeout_s, f"completed: {namespace}/{name}")
