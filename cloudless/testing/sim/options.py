"""Everything about a run that is drawn from its seed before it begins.

Each seed enables only some kinds of faults (a run with all of them mostly shows the loudest one), and says how
often they come.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`safety_s`: virtual seconds with faults. `fault_pause_s`, `operation_pause_s`: mean time between two.

    `forgetful`: coordinators are not told what agents have seen, and claim old terms: the agents must protect
    themselves. `drift`: how much faster or slower than true a host's clock may run. `old_etcd`: the store forgets
    deletions at the revision it compacts. `prompt_expiry`: leases end to the moment, not at the next sweep.
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


def draw_options(seed: int, *, size: str = SMALL, coordinators: int = 0) -> Options:
    """Return the options of a seed; `coordinators` 0 draws their number too."""
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
