"""`cluster scheduler get|set`: how nodes are compared, whether priorities displace, and rebalancing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, Options, current

if TYPE_CHECKING:
    from cloudless.rpc.v1.cluster_pb2 import GetSchedulerResponse, SetSchedulerResponse

_MEANINGS = {
    "pack": "the node that is fullest afterwards",
    "balance": "the node that is emptiest afterwards",
    "affinity": "preferred affinity and anti-affinity",
    "locality": "where the workload has tasks already: the zone, else the region",
    "reliability": "nodes that stayed reachable",
    "cost": "a low number in the node's label cloudless.io/cost",
    "network": "a low number (0 to 1) in the node's label cloudless.io/network-penalty",
}


@click.group(cls=LazyGroup, aliases={"edit": "set"})
def scheduler() -> None:
    """How nodes are chosen for tasks: the weight of each wish, preemption, and rebalancing."""


@scheduler.command("get", cls=Command)
def get() -> None:
    """Show the weights, whether higher priorities displace lower ones, and whether tasks are moved."""
    from cloudless.cli.methods import GET_SCHEDULER
    from cloudless.rpc.v1.cluster_pb2 import GetSchedulerRequest

    options = current()
    with options.client() as client:
        _show(options, client.call(GET_SCHEDULER, GetSchedulerRequest(read=options.read())))


@scheduler.command("set", cls=Command)
@click.option("--pack", type=int, metavar="N", help="Weight of filling nodes up, 0 to 1000. Default: 50")
@click.option("--balance", type=int, metavar="N", help="Weight of levelling nodes; needs --pack 0. Default: 0")
@click.option("--affinity", type=int, metavar="N", help="Weight of preferred (anti-)affinity. Default: 100")
@click.option("--locality", type=int, metavar="N", help="Weight of the zone that has tasks of it. Default: 0")
@click.option("--reliability", type=int, metavar="N", help="Weight of nodes that stayed reachable. Default: 50")
@click.option("--cost", type=int, metavar="N", help="Weight of the nodes' cost label. Default: 50")
@click.option("--network", type=int, metavar="N", help="Weight of their network-penalty label. Default: 50")
@click.option("--preemption/--no-preemption", default=None, help="Lower priorities make way. Default: no")
@click.option(
    "--rebalance-after",
    "rebalance_after_s",
    type=int,
    metavar="SECONDS",
    help="Calm before tasks are moved, one by one, to where they are spread better; 5 to 86400. Default: 0, never",
)
@click.option("--defaults", is_flag=True, help="Begin from the defaults instead of from what is set.")
@click.option("--if-revision", default=0, metavar="N", help="Only if the settings are still at revision N.")
@click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")
def set_(if_revision: int, request_id: str, defaults: bool, **given: Any) -> None:
    """Change settings; what is not given stays as it is. Only --rebalance-after moves tasks that run."""
    from cloudless.cli.methods import SET_SCHEDULER
    from cloudless.rpc.v1.cluster_pb2 import SetSchedulerRequest
    from cloudless.rpc.v1.common_pb2 import WriteOptions

    changes = {name: value for name, value in given.items() if value is not None}
    if not changes and not defaults:
        raise click.UsageError("nothing to change; `cloudless cluster scheduler set --help` lists what there is")
    write = WriteOptions(request_id=request_id, if_revision=if_revision)
    options = current()
    with options.client() as client:
        _show(options, client.call(SET_SCHEDULER, SetSchedulerRequest(options=write, defaults=defaults, **changes)))


def _show(options: Options, answer: GetSchedulerResponse | SetSchedulerResponse) -> None:
    from cloudless.cli.output import show_fields, show_plain
    from cloudless.cli.plain import to_plain

    if options.output in ("json", "yaml"):
        return show_plain(options, to_plain(answer))
    settings = answer.settings
    preemption = "lower priorities make way where it helps" if settings.preemption else "off"
    weights = [(name, f"{getattr(settings, name):>4}  {meaning}") for name, meaning in _MEANINGS.items()]
    after_s = settings.rebalance_after_s
    rebalance = f"after {after_s} s of calm, one task at a time" if after_s else "off"
    show_fields(options, [*weights, ("preemption", preemption), ("rebalance", rebalance)])
