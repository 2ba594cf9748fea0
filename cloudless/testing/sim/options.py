"""Everything about a run that is drawn from its seed before it begins.

Each seed enables only some kinds of faults (a run with all of them mostly shows the loudest one), and says how
often they come.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

SMALL, FULL = "small", "full"

KINDS = (
    "crash-coordinator",
    "crash-at-commit",
    "stop-coordinator",
    "pause-coordinator",
    "crash-agent",
    "crash-at-journal",
    "pause-agent",
    "cut",
    "isolate",
    "store-down",
    "bad-weather",
    "slow-way",
    "lag",
    "break-watch",
    "compact",
    "lose-lease",
    "jump-clock",
    "end-task",
    "slow-disk",
    "transfer",
)


ACTS = ("join", "leave", "remove", "die", "replace", "wipe", "power-off")
TRUST_ACTS = ("revoke", "long-off", "crowd", "rotate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Members of etcd that come and go. `founders` begin; `acts` are what operators and fate do, one after the other.

    `dead_after_s`, `min_quorum` and `lag_max` are the autopilot's settings of that name.
    """

    founders: int = 3
    acts: tuple[str, ...] = ("join", "join")
    act_pause_s: float = 3.0
    dead_after_s: float = 6.0
    min_quorum: int = 3
    lag_max: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Identities and certificates that are good for `lifetime_s`; `acts` are what is done about them.

    Clocks are wrong by no more than a certificate is dated back.
    """

    lifetime_s: int = 16
    acts: tuple[str, ...] = ()
    act_pause_s: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Changes of templates as people make them: by every strategy, some of which never come up, with orders meanwhile.

    `deadline_s`: progress deadline of each. `broken`: share of templates whose tasks end at once. `orders`: how often a
    person gives one of `of_orders`, compared with the other operations. They take `takes_s` more; there are `pause_s`
    between two operations at least, for who changes everything all the time sees no rollout fail.
    """

    deadline_s: int = 3
    broken: float = 0.3
    orders: int = 4
    of_orders: tuple[str, ...] = ("PAUSE", "RESUME", "PROMOTE", "UNDO")
    takes_s: float = 15.0
    pause_s: float = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """Workloads want much of nodes and of each other, have priorities, and users taint nodes."""

    preemption: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`safety_s`: virtual seconds with faults. `fault_pause_s`, `operation_pause_s`: mean time between two.

    `forgetful`: coordinators are not told what agents have seen, and claim old terms: the agents must protect
    themselves. `drift`: how much faster or slower than true a host's clock may run. `old_etcd`: the store forgets
    deletions at the revision it compacts. `prompt_expiry`: leases end to the moment, not at the next sweep.
    `membership`, `certificates`, `rollouts`, `placing`: None where the cluster's members, everybody's identity, changes
    of templates, and where tasks run are no subject. `rebalance_after_s`: the setting of that name; above 0 workloads
    want to be spread, too.
    """

    seed: int
    size: str = SMALL
    coordinators: int = 3
    agents: int = 3
    workloads: int = 2
    safety_s: float = 12.0
    fault_pause_s: float = 1.0
    operation_pause_s: float = 1.0
    kinds: tuple[str, ...] = KINDS
    forgetful: bool = False
    drift: float = 0.01
    lost_after_s: int = 1
    node_timeout_s: float = 4.0
    lease_ttl_s: int = 4
    old_etcd: bool = False
    prompt_expiry: bool = False
    membership: Membership | None = None
    certificates: Certificates | None = None
    rollouts: Rollouts | None = None
    placing: Placing | None = None
    rebalance_after_s: int = 0


ROLLOUTS_SHARE = 0.1
PLACING_SHARE = 0.15
REBALANCING_SHARE = 0.1
REBALANCING_TAKES_S = 10.0
MEMBERSHIP_SHARE = 0.06
CERTIFICATES_SHARE = 0.03
DRIFT_WITH_CERTIFICATES = 0.003


def draw_options(
    seed: int,
    *,
    size: str = SMALL,
    coordinators: int = 0,
    members: bool = False,
    certificates: bool = False,
    rollouts: bool = False,
    placing: bool = False,
    rebalancing: bool = False,
) -> Options:
    """Return the options of a seed; `coordinators` 0 draws their number too.

    Whether members come and go, and whether there are certificates, is drawn from a source of its own, so that a seed
    without them means what it always meant; rollouts likewise, and, where there are none, whether workloads want much
    of nodes; and whether tasks are moved to better nodes. `members`, `certificates`, `rollouts`, `placing`,
    `rebalancing`: whatever is drawn. A run of a given number of coordinators has neither, unless it is told to.
    """
    drawn = draw_faults(seed, size=size, coordinators=coordinators)
    random = Random(f"members-and-trust-{seed}")
    members |= random.random() < MEMBERSHIP_SHARE and not coordinators
    certificates |= random.random() < CERTIFICATES_SHARE and not coordinators
    rollouts |= Random(f"rollouts-{seed}").random() < ROLLOUTS_SHARE and not coordinators
    built = build_options(
        drawn, draw_membership(seed) if members else None, draw_certificates(seed) if certificates else None
    )
    rebalancing |= Random(f"moves-{seed}").random() < REBALANCING_SHARE and not coordinators
    if rebalancing:
        built = with_rebalancing(built, 1)
    if rollouts:
        return with_rollouts(built, draw_rollouts(seed))
    placing |= Random(f"placing-{seed}").random() < PLACING_SHARE
    return replace(built, placing=draw_placing(seed)) if placing else built


def with_rollouts(options: Options, rollouts: Rollouts) -> Options:
    """Return options with rollouts, and with as much time as these take."""
    return replace(
        options,
        rollouts=rollouts,
        safety_s=options.safety_s + rollouts.takes_s,
        operation_pause_s=max(options.operation_pause_s, rollouts.pause_s),
    )


def with_rebalancing(options: Options, after_s: int) -> Options:
    """Return options under which tasks are moved after so long a calm, and with as much time as that takes."""
    return replace(options, rebalance_after_s=after_s, safety_s=options.safety_s + REBALANCING_TAKES_S)


def draw_rollouts(seed: int) -> Rollouts:
    """Return how templates change in a seed."""
    random = Random(f"rollouts-of-{seed}")
    return Rollouts(deadline_s=random.choice((3, 5)), broken=random.choice((0.2, 0.5)), orders=random.choice((2, 6)))


def build_options(drawn: Options, membership: Membership | None, certificates: Certificates | None) -> Options:
    """Return options with members and certificates, and with as much time as these take."""
    if membership is None and certificates is None:
        return drawn
    takes_s = 0.0
    if membership is not None:
        takes_s = len(membership.acts) * (membership.act_pause_s + 5.0)
    if certificates is not None:
        takes_s = max(takes_s, 1.5 * certificates.lifetime_s)
    return replace(
        drawn,
        coordinators=membership.founders if membership else drawn.coordinators,
        safety_s=drawn.safety_s + takes_s,
        drift=min(drawn.drift, DRIFT_WITH_CERTIFICATES) if certificates else drawn.drift,
        membership=membership,
        certificates=certificates,
    )


def draw_placing(seed: int) -> Placing:
    """Return how the workloads of a seed are placed."""
    return Placing(preemption=Random(f"preemption-{seed}").random() < 0.5)


def draw_membership(seed: int) -> Membership:
    """Return what happens to the members in a seed."""
    random = Random(f"membership-{seed}")
    founders = random.choice((1, 3, 3, 5))
    acts = tuple(random.choice(ACTS) for _ in range(random.randint(1, 3)))
    if founders == 1:
        acts = ("join", "join", *acts[:1])
    return Membership(
        founders=founders,
        acts=acts,
        act_pause_s=random.choice((1.0, 3.0)),
        dead_after_s=random.choice((5.0, 8.0)),
        min_quorum=random.choice((1, 3, 3, 5)),
    )


def draw_certificates(seed: int) -> Certificates:
    """Return what happens to certificates in a seed."""
    random = Random(f"certificates-{seed}")
    acts = tuple(act for act in TRUST_ACTS if random.random() < 0.4)
    return Certificates(
        lifetime_s=random.choice((14, 20)),
        acts=tuple(random.sample(acts, len(acts))),
        act_pause_s=random.choice((1.0, 4.0)),
    )


def draw_faults(seed: int, *, size: str = SMALL, coordinators: int = 0) -> Options:
    """Return the options of a seed for a cluster whose members stay and who has no certificates."""
    random = Random(f"options-{seed}")
    full = size == FULL
    kinds = tuple(kind for kind in KINDS if random.random() < 0.4) or (random.choice(KINDS),)
    drawn = random.choice((3, 3, 3, 5)) if full else 3
    return Options(
        seed=seed,
        size=size,
        coordinators=coordinators or drawn,
        agents=random.randint(2, 4) if full else random.randint(2, 3),
        workloads=random.randint(1, 3) if full else random.randint(1, 2),
        safety_s=random.uniform(15, 30) if full else random.uniform(6, 12),
        fault_pause_s=random.choice((0.4, 0.8, 1.5, 3.0)),
        operation_pause_s=random.choice((0.3, 0.8, 2.0)),
        kinds=kinds,
        forgetful=random.random() < 0.1,
        drift=random.choice((0.0, 0.01, 0.05)),
        lost_after_s=random.choice((0, 1, 3)),
        node_timeout_s=random.choice((3.0, 4.0)),
        lease_ttl_s=random.choice((4, 4, 8)),
        old_etcd=random.random() < 0.3,
        prompt_expiry=random.random() < 0.5,
    )
