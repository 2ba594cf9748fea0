"""What one task asks of a node."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from cloudless.core.model import ExecutorKind, Placement, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One task looking for a node.

    `seed` breaks ties between equal nodes; `host_ports` are the fixed ones; `needs` are abilities that the node must
    have; nodes in `avoid` are taken only if no other fits. `generation` separates the tasks of an old template from the
    new ones', which are spread among themselves.
    """

    namespace: str
    workload: str
    generation: int = 1
    seed: str = ""
    requests: Resources = field(default_factory=Resources)
    executor: ExecutorKind = ExecutorKind.PROCESS
    placement: Placement = field(default_factory=Placement)
    host_ports: tuple[int, ...] = ()
    needs: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()

    @property
    def spread_key(self) -> tuple[str, str, int]:
        """Tasks with the same key are spread among each other."""
        return self.namespace, self.workload, self.generation

    @property
    def signature(self) -> Hashable:
        """Everything but the seed: asks with one signature can be placed as a group."""
        where = self.placement
        return (
            self.spread_key,
            self.requests,
            self.executor,
            (where.regions, where.zones, tuple(sorted(where.node_selector.items())), where.spread_topology),
            self.host_ports,
            self.needs,
            self.avoid,
        )
