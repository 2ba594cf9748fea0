"""How tasks of an old generation give way to the new one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cloudless.core.model.evolving import Evolving


class RolloutStrategy(Enum):
    """In which order old tasks end and new ones start.

    ROLLING_UPDATE  a few at a time, within `max_surge` and what must stay available
    RECREATE        all old ones end before the first new one starts
    BLUE_GREEN      all new ones start and become ready beside the old ones, which then end together
    CANARY          `canary` new ones are tried first; the rest follows, as in ROLLING_UPDATE, once they are promoted
    """

    ROLLING_UPDATE = "ROLLING_UPDATE"
    RECREATE = "RECREATE"
    BLUE_GREEN = "BLUE_GREEN"
    CANARY = "CANARY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout(Evolving):
    """How a change of the task template is carried out.

    Bounds: `max_surge` more tasks than replicas may exist and `max_unavailable` fewer may be available while
    changing; `min_available`, if set, takes the place of the latter. Each may be a percentage of the replicas
    instead: where the `…_percent` is above 0 it counts, and the number is 0 or None. Ask `surge_of` and
    `available_least`.

    Pace: at most `batch_size` tasks change at a time (0: as the bounds allow), `pause_s` lies between two
    batches, and a new task must be ready for `min_ready_s` before it counts.

    Outcome: a rollout that comes no further for `progress_deadline_s` (0: no limit) has failed, and with
    `auto_rollback` the template before is put back. `auto_promote`: CANARY and BLUE_GREEN go on by themselves
    once the new tasks are ready, instead of waiting for a person.
    """

    strategy: RolloutStrategy = RolloutStrategy.ROLLING_UPDATE
    max_surge: int = 1
    max_unavailable: int = 0
    max_surge_percent: int = 0
    max_unavailable_percent: int = 0
    min_available: int | None = None
    min_available_percent: int = 0
    batch_size: int = 0
    pause_s: float = 0.0
    min_ready_s: float = 0.0
    progress_deadline_s: float = 600.0
    auto_rollback: bool = True
    canary: int = 0
    auto_promote: bool = False

    def surge_of(self, replicas: int) -> int:
        """Return how many tasks more than `replicas` may exist: BLUE_GREEN doubles them; a percentage is rounded up."""
        if self.strategy is RolloutStrategy.BLUE_GREEN:
            return replicas
        return _rounded_up(replicas, self.max_surge_percent) if self.max_surge_percent else self.max_surge

    def available_least(self, replicas: int) -> int:
        """Return how many tasks must stay available.

        A percentage is rounded towards more available tasks: `min_available` up, `max_unavailable` down. Where
        that leaves no room to change anything, with no surge either, one task may be missing, as in Kubernetes.
        """
        if self.min_available_percent:
            least = _rounded_up(replicas, self.min_available_percent)
        elif self.min_available is not None:
            least = self.min_available
        elif self.max_unavailable_percent:
            least = replicas - replicas * self.max_unavailable_percent // 100
        else:
            least = replicas - self.max_unavailable
        most = replicas if self.surge_of(replicas) else replicas - 1
        return max(0, min(least, most))


def _rounded_up(replicas: int, percent: int) -> int:
    return -(-replicas * percent // 100)
