"""A cluster and workloads with every kind of constraint, for the scheduler's benchmark.

Nodes stand in ten zones; their disks and their host names differ, every fourth has a taint. Of ten workloads two are
spread over zones, two ask for labels of nodes and would like others, two tolerate taints and want their kind on other
nodes, two stay in the zone of another workload, and two would rather not be in a zone with tasks of their tier.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloudless.core import keys
from cloudless.core.model import (
    NodeOperator,
    NodeSpec,
    NodeStatus,
    NodeTerm,
    Placement,
    Reachability,
    Record,
    SpreadTopology,
    Taint,
    TaintEffect,
    TaskDesired,
    TaskObserved,
    TaskState,
    Toleration,
    TolerationOperator,
    Topology,
    WorkloadRecord,
    WorkloadTerm,
)
from cloudless.core.scheduling import Ask
from cloudless.core.state import StateMachine
from cloudless.core.template import build_task_spec
from cloudless.testing.builders import SMALL, build_node, build_stored, build_workload

ZONES = 10
DISKS = ("ssd", "hdd", "nvme")
_TAINT = (Taint(key="batch", effect=TaintEffect.NO_SCHEDULE),)
_FAST = NodeTerm(key="disk", operator=NodeOperator.IN, values=("ssd", "nvme"))
_FASTER = NodeTerm(key="disk", operator=NodeOperator.IN, values=("nvme",), weight=30)


def mixed_placement(number: int) -> Placement:
    """Return the constraints of the workload of that number."""
    match number % 5:
        case 0:
            return Placement(spread_topology=SpreadTopology.ZONE)
        case 1:
            return Placement(node_affinity=(_FAST, _FASTER))
        case 2:
            own = WorkloadTerm(workload=name_of(number), topology=Topology.NODE)
            batch = Toleration(key="batch", operator=TolerationOperator.EXISTS)
            return Placement(tolerations=(batch,), workload_anti_affinity=(own,))
        case 3:
            leader = WorkloadTerm(workload=name_of(number - 3), topology=Topology.ZONE)
            return Placement(workload_affinity=(leader,))
        case _:
            tier = WorkloadTerm(labels={"tier": str(number % 50)}, topology=Topology.ZONE, weight=10)
            return Placement(workload_anti_affinity=(tier,), spread_topology=SpreadTopology.NODE)


def name_of(number: int) -> str:
    return f"w-{number:04d}"


def mixed_workload(number: int, replicas: int) -> WorkloadRecord:
    made = build_workload(name_of(number), uid=name_of(number), replicas=replicas, placement=mixed_placement(number))
    fields = {field: getattr(made, field) for field in WorkloadRecord.__dataclass_fields__}
    return WorkloadRecord(**{**fields, "labels": labels_of(number)})


def labels_of(number: int) -> dict[str, str]:
    return {"tier": str(number % 50)}


def mixed_asks(workloads: Iterable[WorkloadRecord]) -> list[list[Ask]]:
    return [
        [
            Ask(
                namespace=record.namespace,
                workload=record.name,
                seed=f"{record.name}-{slot}",
                requests=record.spec.requests,
                placement=record.spec.placement,
                labels=record.labels,
            )
            for slot in range(record.spec.replicas)
        ]
        for record in workloads
    ]


def mixed_view(nodes: int, workloads: Iterable[WorkloadRecord], running: int = 0) -> StateMachine:
    """Return a state with the nodes, the workloads, and `running` tasks of one more workload spread over all nodes."""
    machine = StateMachine()
    records: list[tuple[str, Record]] = [(keys.workload(w.namespace, w.name), w) for w in workloads]
    for n in range(nodes):
        labels = {"disk": DISKS[n % 3], "hostname": f"host-{n}"}
        node = build_node(f"node-{n:05d}", zone=f"zone-{n % ZONES}", labels=labels)
        records.append((keys.node_info(node.id), node))
        records.append((keys.node_status(node.id), NodeStatus(reachability=Reachability.REACHABLE)))
        if n % 4 == 0:
            records.append((keys.node_spec(node.id), NodeSpec(taints=_TAINT)))
    if running:
        records += _running(nodes, running)
    machine.apply(1, [build_stored(key, record, 1, content=key.encode()) for key, record in records])
    return machine


def _running(nodes: int, count: int) -> list[tuple[str, Record]]:
    workload = build_workload("old", uid="old", replicas=count, requests=SMALL)
    spec = build_task_spec(workload.spec)
    found: list[tuple[str, Record]] = [(keys.workload(workload.namespace, workload.name), workload)]
    for n in range(count):
        node_id = f"node-{n % nodes:05d}"
        task = TaskDesired(
            id=f"old-{n}", namespace="default", workload="old", workload_uid="old", task_generation=1, slot=n,
            node_id=node_id, spec=spec,
        )  # fmt: skip
        seen = TaskObserved(task_id=task.id, node_id=node_id, sequence=1, state=TaskState.RUNNING)
        found += [(keys.task_desired(task.id), task), (keys.task_observed(task.id), seen)]
    return found
