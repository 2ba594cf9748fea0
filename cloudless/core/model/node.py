"""A node: a machine that runs an agent.

Three records, one writer each: `NodeSpec` is what a person wants of it, `NodeInfo` what its agent
says of it (written when the agent enrols and when a fact changes), `NodeStatus` whether the leader
can reach it. The phase a person sees is computed from the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cloudless.core.model.evolving import Evolving
from cloudless.core.model.resources import Resources
from cloudless.core.model.taint import Taint


class NodePhase(Enum):
    """What a person sees.

    ENROLLING  known, not yet reachable for the first time
    READY      reachable and open for new tasks
    CORDONED   reachable, takes no new tasks
    DRAINING   reachable, its tasks are being moved away
    DRAINED    reachable, cordoned and empty
    OFFLINE    not heard of for longer than the node timeout
    """

    ENROLLING = "ENROLLING"
    READY = "READY"
    CORDONED = "CORDONED"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"
    OFFLINE = "OFFLINE"


class Reachability(Enum):
    """The leader's finding about a node's agent."""

    REACHABLE = "REACHABLE"
    UNREACHABLE = "UNREACHABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec(Evolving):
    """What a person wants of a node. Absent means: open for tasks, no extra labels, no taints.

    `drain_until_ms`: while it drains, the wall clock of when its tasks are stopped whatever that leaves available (0:
    never). It is compared with the leader's clock, so a drain may end early or late by what the two differ.
    """

    cordoned: bool = False
    draining: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    drain_until_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo(Evolving):
    """What an agent says of its machine.

    `address` is `host:port` of the agent's own gRPC server (task logs). `executors` names what it can
    run, `capabilities` what else it can do. `boot_id` changes when the machine reboots, which is how tasks
    that cannot have survived are told. `agent_id` is random and kept in the agent's data directory, so two
    agents of one node id are told apart. `unable` says of each ability (`core.abilities`) that is not
    among the capabilities why not. `incarnation` grows with every start of the agent.
    """

    id: str
    name: str = ""
    type: str = ""
    region: str = "local"
    zone: str = ""
    address: str = ""
    metrics_address: str = ""
    capacity: Resources = field(default_factory=Resources)
    executors: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    boot_id: str = ""
    enrolled_at_ms: int = 0
    agent_id: str = ""
    capabilities: tuple[str, ...] = ()
    unable: Mapping[str, str] = field(default_factory=dict)
    incarnation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus(Evolving):
    """The leader's finding, written only when it changes. `since_ms` is when it became so.

    `reliability`: 1.0 for a node of which nothing bad was seen, falling towards 0 with each thing that was.
    """

    reachability: Reachability
    since_ms: int = 0
    reason: str = ""
    term: int = 0
    reliability: float = 1.0
