"""What operators want of the scheduler, for the whole cluster."""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.model.evolving import Evolving

COST_LABEL = "cloudless.io/cost"
"""A node's label: what it costs, a number in any unit that is the same for all nodes."""
NETWORK_PENALTY_LABEL = "cloudless.io/network-penalty"
"""A node's label: how badly it is reached, from 0 (well) to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerRecord(Evolving):
    """How much each wish counts where a task may run on several nodes; 0 to 1000, 0 switches it off.

    Each wish gives a node a loss from 0 to 1, and the node with the least weighted sum is taken. If a weight is wrong,
    tasks run on nodes that suit them less; they never run where they may not.

    pack         the node that is fullest afterwards, which keeps large gaps open elsewhere
    balance      the node that is emptiest afterwards; only one of pack and balance may be above 0
    affinity     preferred affinity and anti-affinity, each term by its own weight
    locality     the zone, else the region, where the workload has tasks already
    reliability  nodes that were reachable without a break
    cost         nodes whose label `cloudless.io/cost` is low, compared with the highest in the cluster
    network      nodes whose label `cloudless.io/network-penalty` is low

    `preemption`: whether tasks of a lower priority make way for one that fits nowhere else.
    `rebalance_after_s`: how long nodes must have been as they are before tasks are moved, one by one, to a node where
    their workload has clearly fewer (0: never). Too short, and tasks move about after every hiccup of a node.
    """

    pack: int = 50
    balance: int = 0
    affinity: int = 100
    locality: int = 0
    reliability: int = 50
    cost: int = 50
    network: int = 50
    preemption: bool = False
    rebalance_after_s: int = 0
    updated_at_ms: int = 0
