"""What one task asks of a node."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from cloudless.core.model import ExecutorKind, Placement, Port, PortProtocol, Resources

HostPort = tuple[int, PortProtocol]
"""A port of a node: udp and tcp have numbers of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One task looking for a node.

    `seed` breaks ties between equal nodes; `host_ports` are the fixed ones; `needs` are abilities that the node must
    have; nodes in `avoid` are taken only if no other fits. `generation` separates the tasks of an old template from the
    new ones', which are spread among themselves. `labels` are the workload's own, by which others find it.
    """

    namespace: str
    workload: str
    generation: int = 1
    seed: str = ""
    requests: Resources = field(default_factory=Resources)
    executor: ExecutorKind = ExecutorKind.PROCESS
    placement: Placement = field(default_factory=Placement)
    host_ports: tuple[HostPort, ...] = ()
    needs: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0

    @property
    def spread_key(self) -> tuple[str, str, int]:
        """Tasks with the same key are spread among each other."""
        return self.namespace, self.workload, self.generation

    def is_like(self, other: Ask) -> bool:
        """Return whether the other has the same signature, as far as a look at the parts they share can tell."""
        return (
            self.placement is other.placement
            and self.requests is other.requests
            and self.labels is other.labels
            and self.spread_key == other.spread_key
            and (self.executor, self.host_ports, self.avoid) == (other.executor, other.host_ports, other.avoid)
            and self.priority == other.priority
        )

    @property
    def signature(self) -> Hashable:
        """Everything but the seed: asks with one signature can be placed as a group."""
        return (
            self.spread_key,
            self.requests,
            self.executor,
            _frozen(self.placement),
            self.host_ports,
            self.needs,
            self.avoid,
            tuple(sorted(self.labels.items())),
            self.priority,
        )


def fixed_ports(ports: Iterable[Port]) -> tuple[HostPort, ...]:
    """Return the ports of its node that a task with these must have."""
    return tuple((port.host_port, port.protocol) for port in ports if port.host_port)


def _frozen(where: Placement) -> Hashable:
    return (
        where.regions,
        where.zones,
        tuple(sorted(where.node_selector.items())),
        where.spread_topology,
        where.tolerations,
        where.node_affinity,
        *(
            tuple((t.workload, tuple(sorted(t.labels.items())), t.topology, t.weight) for t in terms)
            for terms in (where.workload_affinity, where.workload_anti_affinity)
        ),
    )
