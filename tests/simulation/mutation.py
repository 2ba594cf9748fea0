"""What a planted bug is: which piece of code it replaces, and under which options it has to be found by whom."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloudless.testing.sim.options import (
    SMALL,
    Certificates,
    Membership,
    Options,
    Placing,
    Rollouts,
    build_options,
    draw_certificates,
    draw_faults,
    draw_membership,
    with_rebalancing,
    with_rollouts,
)


@dataclass(frozen=True, slots=True)
class Patch:
    """`old` becomes `new` in the source of `target`, a function or method named as in `module:Class.method`."""

    target: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """A bug to plant. It must be found within `seeds_max` seeds, from the first on, by one of the checkers `by`.

    `kinds`: the runs have these kinds of faults instead of drawn ones, so that few seeds suffice for what needs
    several things to come together; the others are as in the options. `acts`, `trust_acts`: the runs are about members
    or certificates, and that is what is done; `rollouts`: about changes of templates; `placing`: workloads want much of
    nodes, and those of higher priority displace others; `rebalancing`: tasks are moved to better nodes. `founders`,
    `min_quorum`: 0 lets the seed say.
    """

    name: str
    patches: tuple[Patch, ...]
    by: tuple[str, ...]
    seeds_max: int = 200
    kinds: tuple[str, ...] = ()
    forgetful: bool = False
    size: str = SMALL
    fault_pause_s: float = 0.0
    acts: tuple[str, ...] = ()
    trust_acts: tuple[str, ...] | None = None
    founders: int = 0
    min_quorum: int = 0
    rollouts: Rollouts | None = None
    placing: bool = False
    rebalancing: bool = False

    def options(self, seed: int) -> Options:
        """Return what a seed is run under."""
        drawn = draw_faults(seed, size=self.size)
        drawn = replace(
            drawn,
            kinds=self.kinds or drawn.kinds,
            forgetful=self.forgetful or drawn.forgetful,
            fault_pause_s=self.fault_pause_s or drawn.fault_pause_s,
        )
        membership: Membership | None = None
        certificates: Certificates | None = None
        if self.acts:
            said = draw_membership(seed)
            membership = replace(
                said,
                acts=self.acts,
                founders=self.founders or said.founders,
                min_quorum=self.min_quorum or said.min_quorum,
            )
        if self.trust_acts is not None:
            certificates = replace(draw_certificates(seed), acts=self.trust_acts)
        built = build_options(drawn, membership, certificates)
        if self.rebalancing:
            built = with_rebalancing(built, 1)
        if self.rollouts is not None:
            return with_rollouts(built, self.rollouts)
        return replace(built, placing=Placing(preemption=True)) if self.placing else built
