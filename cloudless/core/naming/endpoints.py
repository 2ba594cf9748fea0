"""Which addresses of a workload are ready to be used, and in which order one asker should try them.

::

    task                                            node                       endpoint
    ──────────────────────────────────────────────  ─────────────────────────  ─────────────────────────────────
    wanted, its agent says RUNNING and ready        reachable                  yes
    the same                                        unreachable, or unknown    doubtful, until the leader gives the
                                                                               task up (`lostAfter`) or it is back
    told to stop, not ready, in any other state     any                        none
    of an earlier workload of the same name         any                        none

A task that is told to stop is no endpoint from that very revision on, before its process gets a signal. A doubtful one
may well serve (only the coordinators cannot reach its node), so it is told of, last and marked; whoever wants plain
addresses gets it only while the workload has no other (`usable_endpoints`).

Near ones come first: same node, same zone, same region, the rest; a zone counts only within its region. Equally near
ones are in an order of the asker's own, so that a thousand askers do not all try the same one first. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from cloudless.core.model import Port, PortProtocol, TaskState
from cloudless.core.state.view import Node, Task, View


class Distance(IntEnum):
    """How far an endpoint is from who asks. REST also when nobody knows where the asker is."""

    NODE = 0
    ZONE = 1
    REGION = 2
    REST = 3


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: `node_id` of the node it is on ("": unknown); `name` only tells askers apart."""

    node_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One port of one task, as one asker sees it. `port_name` "" and `port` 0: the task declares no ports.

    `host` is what the node's agent is reached at: an address, or a name. `order` decides between equally near ones.
    """

    namespace: str
    workload: str
    task_id: str
    node_id: str
    region: str
    zone: str
    host: str
    port_name: str
    port: int
    protocol: PortProtocol
    distance: Distance
    order: int
    doubtful: bool

    @property
    def key(self) -> tuple[str, str]:
        """What names it: task and port."""
        return self.task_id, self.port_name

    @property
    def rank(self) -> tuple[bool, int, int, str, str]:
        """The better, the lower."""
        return self.doubtful, self.distance, self.order, self.task_id, self.port_name


def find_endpoints(view: View, namespace: str, workload: str, asker: Asker) -> tuple[Endpoint, ...]:
    """Return all endpoints of a workload, best first; nothing for one that does not exist or is being deleted."""
    held = view.workloads.get((namespace, workload))
    if held is None or held.record.deleted_at_ms > 0:
        return ()
    here = view.nodes.get(asker.node_id)
    found = [
        endpoint
        for task_id in sorted(view.tasks_of(namespace, workload))
        if (task := view.tasks[task_id]).desired.workload_uid == held.record.uid and _serves(task)
        for endpoint in _endpoints_of(view, task, asker, here)
    ]
    return tuple(sorted(found, key=lambda endpoint: endpoint.rank))


def usable_endpoints(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Return those to give to who cannot tell doubtful ones apart: the others, or all if there are no others."""
    return tuple(endpoint for endpoint in endpoints if not endpoint.doubtful) or endpoints


def _serves(task: Task) -> bool:
    observed = task.observed
    return task.active and observed is not None and observed.state is TaskState.RUNNING and observed.ready


def _endpoints_of(view: View, task: Task, asker: Asker, here: Node | None) -> Iterator[Endpoint]:
    observed = task.observed
    assert observed is not None
    if not observed.host:
        return
    node = view.nodes.get(task.desired.node_id)
    info = node.info if node is not None else None
    order = int.from_bytes(hashlib.blake2b(f"{asker.name}/{task.id}".encode(), digest_size=4).digest())
    for port in _ports_of(task):
        yield Endpoint(
            namespace=task.desired.namespace,
            workload=task.desired.workload,
            task_id=task.id,
            node_id=task.desired.node_id,
            region=info.region if info else "",
            zone=info.zone if info else "",
            host=observed.host,
            port_name=port.name,
            port=observed.ports.get(port.name, 0),
            protocol=port.protocol,
            distance=_distance(here, node),
            order=order,
            doubtful=node is None or not node.reachable,
        )


def _ports_of(task: Task) -> Iterator[Port]:
    """Return the ports that the agent has given a number; one without a name if the task declares none."""
    observed = task.observed
    assert observed is not None
    if not task.desired.spec.ports:
        yield Port(name="")
    for port in task.desired.spec.ports:
        if observed.ports.get(port.name):
            yield port


def _distance(here: Node | None, there: Node | None) -> Distance:
    if here is None or there is None or here.info is None or there.info is None:
        return Distance.REST
    if here.id == there.id:
        return Distance.NODE
    if here.info.region != there.info.region:
        return Distance.REST
    same_zone = bool(here.info.zone) and here.info.zone == there.info.zone
    return Distance.ZONE if same_zone else Distance.REGION
