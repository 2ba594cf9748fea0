"""Members of etcd: no step of ours costs the quorum, one learner at a time, who is gone does not count any more."""

from __future__ import annotations

from typing import Any

from cloudless.testing.sim.checkers.checker import Checker
from cloudless.testing.sim.etcd_cluster import AskedMembers, MembersChanged
from cloudless.testing.sim.happenings import Acted, Looked, Stored, TookOffice

KNOWN_WITHIN_S = 3.0
"""A leader may not have noticed yet what happened so lately: links fall silent after about a second and a half."""
WELL_AFTER_S = 3.0
TOOK_OFFICE_S = 6.0
"""Between the confirmation of a win and the office it leads to: the longest barrier, and some."""


class Presence(Checker):
    """Remembers when each host was last up and in touch with a leader of etcd's, and when in good order altogether."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._present_s: dict[str, float] = {}
        self._well_since_s: dict[str, float] = {}
        self._well_s: dict[str, float] = {}

    def look(self) -> None:
        """Note how every host is now; to be called often."""
        now_s = self.world.loop.now_s
        for host, seat in self.world.roster.cluster.seats.items():
            if seat.served:
                self._present_s[host] = now_s
            if not self._is_well(host, seat):
                self._well_since_s.pop(host, None)
            elif now_s - self._well_since_s.setdefault(host, now_s) >= WELL_AFTER_S:
                self._well_s[host] = now_s

    def _is_well(self, host: str, seat: Any) -> bool:
        """Whether its coordinator runs, has a store, and reaches everybody."""
        weather, life = self.world.network.weather, self.world.coordinators.get(host)
        cluster = self.world.roster.cluster
        if life is None or not (seat.served and life.process.running and life.serves):
            return False
        others = [one.host for one in cluster.members.values() if one.up and one is not seat]
        return not (weather.lost or weather.refused) and all(cluster.in_touch(host, other) for other in others)

    def was_present(self, host: str) -> bool:
        return self.world.loop.now_s - self._present_s.get(host, -KNOWN_WITHIN_S - 1) <= KNOWN_WITHIN_S

    def on_Stored(self, stored: Stored) -> None:
        self.look()

    def on_Looked(self, looked: Looked) -> None:
        self.look()


class QuorumKept(Presence):
    """No change of the members leaves fewer voters present than a majority, as far as the leader can know.

    A majority was there before, or nothing could have been changed. Present is who is up and in touch with Raft's
    leader, or was so lately that its loss may not have been noticed.
    """

    def on_MembersChanged(self, changed: MembersChanged) -> None:
        present = {host for host in changed.after if host in changed.present or self.was_present(host)}
        if len(present) <= len(changed.after) // 2:
            raise self.refuse(
                f"{changed.change} of {changed.host} by {changed.by} leaves {sorted(present)} of the voters "
                f"{sorted(changed.after)}; before it there were {sorted(changed.before)}"
            )


class OneLearner(Checker):
    """Nobody asks for a second learner while there is one, unless it was added too lately to be known.

    etcd refuses it; a cluster whose limit was raised would not.
    """

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._added_s = 0.0

    def on_MembersChanged(self, changed: MembersChanged) -> None:
        if changed.change == "add":
            self._added_s = self.world.loop.now_s

    def on_AskedMembers(self, asked: AskedMembers) -> None:
        learners = [seat.host for seat in self.world.roster.cluster.members.values() if seat.learner]
        if asked.change == "add" and learners and self.world.loop.now_s - self._added_s > KNOWN_WITHIN_S:
            raise self.refuse(f"{asked.by} adds a learner while {', '.join(learners)} is one")


class PromotedInStep(Presence):
    """Only a learner that is there and has all but the newest of the log is asked to be made a voter."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._indexes: list[tuple[float, int]] = []

    def on_Stored(self, stored: Stored) -> None:
        super().on_Stored(stored)
        self._indexes.append((self.world.loop.now_s, self.world.roster.cluster.index))

    def on_AskedMembers(self, asked: AskedMembers) -> None:
        if asked.change != "promote" or asked.seat is None or not asked.seat.learner:
            return
        roster, now_s = self.world.roster, self.world.loop.now_s
        if not asked.seat.served and not self.was_present(asked.seat.host):
            raise self.refuse(f"{asked.by} promotes {asked.seat.host}, which is away")
        known = max((index for at_s, index in self._indexes if at_s <= now_s - KNOWN_WITHIN_S), default=0)
        lag = known - roster.cluster.progress(asked.seat)
        if lag > roster.membership.lag_max:
            raise self.refuse(f"{asked.by} promotes {asked.seat.host}, which is {lag} entries behind")


class DeadLongEnough(Presence):
    """A voter is removed unasked only after it was dead for as long as was set, and never below the least number."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._asked_for: set[str] = set()

    def on_Acted(self, acted: Acted) -> None:
        if acted.act in ("leave", "remove", "replace"):
            self._asked_for.add(acted.who)

    def on_AskedMembers(self, asked: AskedMembers) -> None:
        seat = asked.seat
        if asked.change != "remove" or seat is None or seat.learner or seat.host in self._asked_for:
            return
        roster = self.world.roster
        wanted = roster.membership
        if not roster.has_data(seat.host):
            return  # it comes back without its data: its old place is of no use to anybody
        dead_s = self.world.loop.now_s - self._well_s.get(seat.host, 0.0)
        if dead_s < wanted.dead_after_s * (1 - self.world.options.drift) - 1.0:
            raise self.refuse(f"{asked.by} removes {seat.host}, which was well {dead_s:.1f} s ago")
        left = len(roster.cluster.voters) - 1
        coming = any(host not in {voter.host for voter in roster.cluster.voters} for host in roster.wanted)
        if left < wanted.min_quorum and not coming:
            raise self.refuse(
                f"{asked.by} removes {seat.host} and leaves {left} voters, fewer than {wanted.min_quorum}"
            )


class RemovedIsOut(Checker):
    """Who is no member writes nothing and takes no office."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._removed_s: dict[str, float] = {}

    def on_MembersChanged(self, changed: MembersChanged) -> None:
        if changed.change == "remove":
            self._removed_s[changed.host] = self.world.loop.now_s
        else:
            self._removed_s.pop(changed.host, None)

    def on_Stored(self, stored: Stored) -> None:
        if stored.by is not None and stored.by.name in self._removed_s:
            raise self.refuse(f"{stored.by.name} wrote r{stored.revision} and is no member")

    def on_TookOffice(self, took: TookOffice) -> None:
        at_s = self._removed_s.get(took.life.id)
        if at_s is not None and self.world.loop.now_s - at_s > TOOK_OFFICE_S:
            raise self.refuse(f"{took.life.id} takes office of term {took.term} and is no member")

    def on_Looked(self, looked: Looked) -> None:
        """A removed leader is not sure of its office for longer than its lease lets it be."""
        for host, at_s in self._removed_s.items():
            life = self.world.coordinators.get(host)
            if life is None or not life.process.running or not life.leadership.leading_term:
                continue
            if self.world.loop.now_s - at_s > self.world.options.lease_ttl_s:
                raise self.refuse(f"{host} is sure of leading and no member any more")
