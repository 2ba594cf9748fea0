"""What many nodes have in common, so that it is looked at once for all of them.

A cluster has thousands of nodes and few kinds of them. Nodes of one site agree in everything that no
placement changes and most filters ask for; those filters look at a site, not at its nodes.
"""

from __future__ import annotations

from typing import NamedTuple

from cloudless.core.abilities import START
from cloudless.core.model import NodeInfo
from cloudless.core.state.view import Node


class Site(NamedTuple):
    """The facts that nodes of one site share. `enrolled` is whether the node was ever reached."""

    enrolled: bool
    reachable: bool
    draining: bool
    cordoned: bool
    executors: tuple[str, ...]
    capabilities: tuple[str, ...]
    starts_tasks: bool
    region: str
    zone: str


def site_of(node: Node, info: NodeInfo) -> Site:
    spec = node.spec
    return Site(
        node.status is not None,
        node.reachable,
        spec.draining,
        spec.cordoned,
        info.executors,
        info.capabilities,
        START not in info.unable,
        info.region,
        info.zone,
    )
