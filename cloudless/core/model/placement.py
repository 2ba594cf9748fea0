"""Where tasks may run, and where they would rather run.

Terms say what a node has to be like, or which other tasks have to be near it (affinity) or must not be
(anti-affinity). A term with `weight` 0 is required: a node that breaks one is not used. A term with a weight
from 1 to 100 is preferred: it only adds to a node's score. Required terms come first.

Like all of a placement they count when a task is placed; one that runs stays, whatever changes around it, unless its
node gets a taint NO_EXECUTE that it does not tolerate. Anti-affinity holds both ways, as in Kubernetes: what a running
task must not have near it is not placed near it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cloudless.core.model.evolving import Evolving
from cloudless.core.model.taint import Toleration

WEIGHT_MAX = 100


class SpreadTopology(Enum):
    """Over what replicas are spread evenly before anything else is considered. NONE packs tightly."""

    NONE = "none"
    NODE = "node"
    ZONE = "zone"
    REGION = "region"


class Topology(Enum):
    """How near is near: on the same node, in the same zone, in the same region."""

    NODE = "node"
    ZONE = "zone"
    REGION = "region"


class NodeOperator(Enum):
    """How a node's label `key` is compared; as in Kubernetes, NOT_IN also holds for a node without the label."""

    IN = "IN"
    NOT_IN = "NOT_IN"
    EXISTS = "EXISTS"
    DOES_NOT_EXIST = "DOES_NOT_EXIST"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTerm(Evolving):
    """What a node's label `key` must be like. `values` go with IN and NOT_IN only, and are not empty there."""

    key: str
    operator: NodeOperator
    values: tuple[str, ...] = ()
    weight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadTerm(Evolving):
    """Tasks of which workload: the one named `workload`, or all whose labels contain `labels`; never both.

    Only workloads of the same namespace are meant; the task's own workload may be. `topology` says within
    what a task of it must be found (affinity), or must not (anti-affinity).
    """

    workload: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    topology: Topology = Topology.NODE
    weight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement(Evolving):
    """Where tasks may run. Empty means anywhere. `node_selector` labels must all match."""

    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    spread_topology: SpreadTopology = SpreadTopology.NONE
    tolerations: tuple[Toleration, ...] = ()
    node_affinity: tuple[NodeTerm, ...] = ()
    workload_affinity: tuple[WorkloadTerm, ...] = ()
    workload_anti_affinity: tuple[WorkloadTerm, ...] = ()
