"""The hosts of coordinators that come and go: who is wanted, who is off, who is gone for good, and each one's disk.

`Operator` says what happens; this is how it happens. Every host that is wanted and has lost its place asks for a new
one when it is started, as with CLOUDLESS_REJOIN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from cloudless.core import keys
from cloudless.core.discovery.endpoints import Endpoint
from cloudless.core.model import AutopilotRecord
from cloudless.ports import Put
from cloudless.rpc.codec import encode_record
from cloudless.testing.sim.etcd_cluster import EtcdCluster
from cloudless.testing.sim.happenings import Disturbed, Soothed
from cloudless.testing.sim.member_care import MemberCare, MemberDisk
from cloudless.testing.sim.options import Membership

if TYPE_CHECKING:
    from cloudless.testing.sim.coordinator import CoordinatorLife
    from cloudless.testing.sim.world import World

RESTART_S = (0.3, 2.0)
CATCH_UP_STABLE_S = 0.5
STABILIZATION_S = 2.0
LEARNER_STALL_S = 12.0
VOTERS_MAX = 5


class NamedSeeds:
    """An agent's seeds: a name that leads to today's coordinators at every look."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def current(self) -> tuple[Endpoint, ...]:
        return tuple(Endpoint(address) for address in self._roster.find_seeds())

    async def refresh(self) -> bool:
        return False

    def pause_s(self) -> float:
        return math.inf

    def problems(self) -> Mapping[str, str]:
        return {}


class Roster:
    """`wanted` hosts shall be members; `dead` ones are gone for good and may still be in the list."""

    def __init__(self, world: World, membership: Membership) -> None:
        self._world, self.membership = world, membership
        seed = world.options.seed
        self.random = Random(f"roster-{seed}")
        self.wanted = list(world.coordinator_ids)
        self.dead: list[str] = []
        self._off: set[str] = set()
        self._last = len(self.wanted)
        self.disks = {host: MemberDisk(voted=True) for host in self.wanted}
        memory = world.host.memory
        self.cluster = EtcdCluster(
            world.loop, world.network, world.trace, Random(f"etcd-{seed}"), lambda: memory.revision
        )
        world.host.cluster = self.cluster
        self.cluster.tell = world.tell
        self.cluster.on_elected = memory.extend_leases
        self.cluster.on_told_removed = self._on_told_removed
        self.cluster.found(self.wanted)
        for host in self.wanted:
            self.disks[host].member_id = self.cluster.seats[host].id
        self._settle_autopilot()

    def _settle_autopilot(self) -> None:
        """Let the cluster begin with the autopilot set as the options say."""
        wanted = self.membership
        record = AutopilotRecord(
            dead_after_s=wanted.dead_after_s,
            stabilization_s=STABILIZATION_S,
            min_quorum=wanted.min_quorum,
            learner_stall_s=LEARNER_STALL_S,
            catch_up_lag_max=wanted.lag_max,
            catch_up_stable_s=CATCH_UP_STABLE_S,
            voters_max=VOTERS_MAX,
        )
        self._world.plant(Put(keys.AUTOPILOT, encode_record(record)))

    def find_seeds(self) -> tuple[str, ...]:
        """Return where coordinators are, as a name in DNS that is kept up to date would say."""
        return tuple(f"{host}:1" for host in self.wanted)

    # --- lives ---

    def care_for(self, life: CoordinatorLife) -> MemberCare:
        world = self._world
        random = Random(f"care-{life.id}-{life.life}-{world.options.seed}")
        return MemberCare(
            life, self.cluster, self.disks[life.id], self.find_seeds, partial(world.call_between, life.id), random
        )

    def _on_told_removed(self, host: str) -> None:
        life = self._world.coordinators.get(host)
        if life is not None and life.process.alive and life.care is not None:
            world_loop = self._world.loop
            world_loop.call_soon(life.care.hear_of_removal, context=life.process.context)

    def on_removed(self, life: CoordinatorLife) -> None:
        """A coordinator ended because its member was removed."""
        host = life.id
        self._world.kill(host, told=True)
        if host not in self.wanted:
            return self.retire(host)
        self.cluster.forget(host)
        self.disks[host].member_id = 0
        loop = self._world.loop
        loop.world_at(loop.now_s + self.random.uniform(*RESTART_S), self._world.start, host)
        return None

    # --- hosts ---

    def is_off(self, host: str) -> bool:
        return host in self._off

    def add(self) -> str:
        """Begin a new host; return its id."""
        self._last += 1
        host = f"c{self._last}"
        world = self._world
        world.clocks[host] = world.build_clock(self.random)
        self.disks[host] = MemberDisk()
        self.wanted.append(host)
        world.coordinator_ids = (*world.coordinator_ids, host)
        return host

    def retire(self, host: str) -> None:
        """Its operator has taken the host away: nothing of it runs again."""
        world = self._world
        world.kill(host, told=True)
        self._off.add(host)
        self.cluster.stop(host)
        if host in self.wanted:
            self.wanted.remove(host)
        world.coordinator_ids = tuple(name for name in world.coordinator_ids if name != host)

    def die(self, host: str) -> None:
        """The host is gone for good, and nobody told the cluster."""
        self._world.tell(Disturbed("die", host))
        self._power_cut(host)
        self.wanted.remove(host)
        self.dead.append(host)
        self._world.coordinator_ids = tuple(name for name in self._world.coordinator_ids if name != host)

    def power_off(self, host: str) -> None:
        self._world.tell(Disturbed("power-off", host))
        self._power_cut(host)

    def power_on(self, host: str) -> None:
        if host in self._off and host in self.wanted:
            self._off.discard(host)
            self._world.tell(Soothed("power-off", host))
            self._world.start(host)

    def wipe(self, host: str) -> None:
        """The host, which is off, loses etcd's data."""
        self.cluster.forget(host)
        self.disks[host].member_id = 0

    def _power_cut(self, host: str) -> None:
        self._off.add(host)
        self._world.kill(host, told=False)
        if (life := self._world.coordinators.get(host)) is not None:
            life.scope_term = 0  # nothing of it runs, and faults look for who leads
        self._world.trace.note(host, "is without power")
        self.cluster.stop(host)

    # --- what may be done to hosts ---

    def has_data(self, host: str) -> bool:
        return self.cluster.belongs(host)

    def can_lose(self, host: str, *, removed: bool = False) -> bool:
        """Return whether a majority keeps its data without `host`, whatever is being done to the members now.

        `removed`: it will not be counted any more; but one that is without power has to be removed by the others.
        """
        every = [seat.host for seat in self.cluster.members.values()]
        voters = [seat.host for seat in self.cluster.voters]
        # A learner does not count yet, and may the next moment.
        spared = removed and host not in self._off
        return all(self._lasts(hosts, host, len(hosts) - (spared and host in hosts)) for hosts in (voters, every))

    def _lasts(self, hosts: list[str], lost: str, counted: int) -> bool:
        lasting = [host for host in hosts if host != lost and host in self.wanted and self.has_data(host)]
        return len(lasting) > counted // 2
