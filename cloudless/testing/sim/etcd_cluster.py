"""etcd's members in the simulated world: who votes, who learns, who leads Raft, and whether there is a quorum.

The store's content is one truth (`store`); here is through whom it can be reached. A member works while it is up,
belongs to the cluster, and is in touch with the Raft leader; there is a leader while a majority of the voters is up
and in touch with it. So a wrong step in membership costs the quorum here as it would in the world.

Changes are refused as etcd 3.5 refuses them with strict reconfiguration checks (its `server.go`, `cluster.go`): one
learner at a time; nobody is added while a voter was out of touch within the last five seconds; a learner is promoted
once it has nine tenths of the leader's log; a voter that is in touch is removed only if enough others have been for
five seconds, one that is not always. A removed member learns of it from whoever still belongs, and ends.

Not modelled: members that believe different configurations for a moment, logs that differ in content, snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from cloudless.adapters.etcd.admin import (
    LearnerNotReady,
    Member,
    MemberNotFound,
    MemberNotLearner,
    MemberStatus,
    NotRaftLeader,
    PeerUrlTaken,
    ReconfigurationUnsafe,
    TooManyLearners,
)
from cloudless.errors import Conflict, Unavailable
from cloudless.testing.sim.loop import SimLoop
from cloudless.testing.sim.network import Network
from cloudless.testing.sim.trace import Trace

STORE = "store"
HEALTH_S = 5.0
READY_SHARE = 0.9
ELECTION_S = (0.3, 1.5)
CATCH_UP_S = (0.2, 4.0)
TOLD_REMOVED_S = (0.05, 1.0)
INDEX_FIRST = 50
"""What a log holds before the first key is written."""
CLUSTER_ID = 0xC1


@dataclass(slots=True)
class Seat:
    """One member. `reached` is how far its log went when it was last in touch; `told`: it knows it was removed.

    `began_s` and `catches_up_s` tell how far a new one has copied; `catches_up_s` is 0 once it has everything.
    """

    id: int
    host: str
    peer_url: str
    learner: bool
    name: str = ""
    up: bool = False
    served: bool = False
    told: bool = False
    reached: int = 0
    began_s: float = 0.0
    catches_up_s: float = 0.0


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """The member list changed. `change` is add, promote or remove; `by` the host that asked, "" at the founding.

    `before` and `after` are the voters' hosts; `present` those of both that were up and in touch with Raft's leader.
    """

    change: str
    host: str
    by: str
    before: frozenset[str]
    after: frozenset[str]
    present: frozenset[str]


@dataclass(frozen=True, slots=True)
class AskedMembers:
    """A change of the members reached etcd, which may still refuse it. `seat` None: no such member."""

    change: str
    seat: Seat | None
    by: str


@dataclass(slots=True)
class _Touch:
    """Since when each pair of hosts has been in touch."""

    since_s: dict[tuple[str, str], float] = field(default_factory=dict)

    def note(self, pair: tuple[str, str], touches: bool, now_s: float) -> None:
        if not touches:
            self.since_s.pop(pair, None)
        else:
            self.since_s.setdefault(pair, now_s)

    def lasts(self, one: str, other: str, now_s: float) -> bool:
        return one == other or now_s - self.since_s.get(_pair(one, other), now_s) >= HEALTH_S


class EtcdCluster:
    """All members, by id. `seats` holds removed ones too, by host, until they have learned of it."""

    def __init__(
        self, loop: SimLoop, network: Network, trace: Trace, random: Random, revision: Callable[[], int]
    ) -> None:
        self._loop, self._network, self._trace, self._random = loop, network, trace, random
        self._revision = revision
        self.members: dict[int, Seat] = {}
        self.seats: dict[str, Seat] = {}
        self.leader_id = 0
        self._changes = 0
        self._term = 0
        self._last_id = 100
        self._touch = _Touch()
        self._severed: set[str] = set()
        self._electing = self._refreshing = False
        self.tell: Callable[[object], None] = lambda happening: None
        self.on_elected: Callable[[], None] = lambda: None
        self.on_told_removed: Callable[[str], None] = lambda host: None
        network.on_changed = self.refresh

    # --- what is there ---

    @property
    def index(self) -> int:
        """How far the leader's log goes."""
        return INDEX_FIRST + self._revision() + self._changes

    @property
    def voters(self) -> list[Seat]:
        return [seat for _, seat in sorted(self.members.items()) if not seat.learner]

    @property
    def leader(self) -> Seat | None:
        return self.members.get(self.leader_id)

    def belongs(self, host: str) -> bool:
        seat = self.seats.get(host)
        return seat is not None and self.members.get(seat.id) is seat

    def votes(self, host: str) -> bool:
        return self.belongs(host) and not self.seats[host].learner

    def progress(self, seat: Seat) -> int:
        """Return how far a member's log goes."""
        if not seat.served:
            return seat.reached
        if not seat.catches_up_s:
            return self.index
        share = min(1.0, (self._loop.now_s - seat.began_s) / seat.catches_up_s)
        seat.reached = max(seat.reached, int(self.index * share))
        if share >= 1.0:
            seat.catches_up_s = 0.0
        return seat.reached

    # --- members' processes ---

    def found(self, hosts: Iterable[str]) -> None:
        """Begin with these as voters, all of them up."""
        for host in hosts:
            seat = self._seat(host, peer_url_of(host), learner=False)
            self.seats[host], self.members[seat.id] = seat, seat
            seat.name, seat.up = host, True
        self.leader_id = min(self.members)
        self.refresh()

    def up(self, host: str) -> bool:
        seat = self.seats.get(host)
        return seat is not None and seat.up

    def start(self, host: str) -> None:
        """Let the member whose data the host has run."""
        seat = self.seats[host]
        if seat.up or seat.told:
            return
        seat.up, seat.name = True, host
        if seat.catches_up_s:
            seat.began_s = self._loop.now_s
        self._trace.note(host, f"etcd member {seat.id} runs")
        self.refresh()

    def stop(self, host: str) -> None:
        if self.up(host):
            self.seats[host].up = False
            self._trace.note(host, "etcd ends")
            self.refresh()

    def forget(self, host: str) -> None:
        """The host's data are gone or put aside."""
        self.stop(host)
        self.seats.pop(host, None)
        self.refresh()

    def take_place(self, host: str, member_id: int) -> None:
        """A host that was let in has what it needs to start as this member."""
        seat = self.members.get(member_id)
        if seat is None or seat.host != host:
            raise Unavailable(f"member {member_id} is gone")
        self.seats[host] = seat

    # --- who is in touch ---

    def refresh(self) -> None:
        """Look again who reaches whom: called at every change of the network, of processes, of the members."""
        if self._refreshing:
            return
        self._refreshing = True
        now_s, hosts = self._loop.now_s, sorted(seat.host for seat in self.members.values())
        for place, one in enumerate(hosts):
            for other in hosts[place + 1 :]:
                self._touch.note((one, other), self.in_touch(one, other), now_s)
        leader = self.leader
        if leader is not None and not self._has_quorum(leader):
            leader = None
        if leader is None:
            if self.leader_id:
                self._trace.note(STORE, "has no leader")
            self.leader_id = 0
            self._stand()
        for seat in self.seats.values():
            self._serve(seat, leader)
        self._refreshing = False

    def _serve(self, seat: Seat, leader: Seat | None) -> None:
        """Open or bar a host's way to the store, as its member's state is."""
        reached = self.progress(seat)
        seat.served = bool(
            leader and seat.up and self.belongs(seat.host) and (seat is leader or self.in_touch(seat.host, leader.host))
        )
        if not seat.served:
            seat.reached = reached
        bars = not seat.served or seat.learner
        if bars and seat.host not in self._severed:
            self._severed.add(seat.host)
            self._network.cut(seat.host, STORE)
            self._network.cut(STORE, seat.host)
        elif not bars and seat.host in self._severed:
            self._severed.discard(seat.host)
            self._network.heal(seat.host, STORE)
            self._network.heal(STORE, seat.host)
        if seat.up and not self.belongs(seat.host):
            self._loop.world_at(self._loop.now_s + self._random.uniform(*TOLD_REMOVED_S), self._tell_removed, seat)

    def reopen(self) -> None:
        """The network was made whole by force: bar again what is barred for other reasons."""
        self._severed.clear()
        self.refresh()

    def _cut_off(self, host: str) -> bool:
        own = host in self._severed
        return any(self._network.times_cut(*way) > own for way in ((host, STORE), (STORE, host)))

    def in_touch(self, one: str, other: str) -> bool:
        """Return whether two hosts' members run and reach each other."""
        network = self._network
        return (
            self.up(one)
            and self.up(other)
            and network.reaches(one, other)
            and network.reaches(other, one)
            and not self._cut_off(one)
            and not self._cut_off(other)
        )

    def _reached_by(self, seat: Seat) -> list[Seat]:
        return [one for one in self.voters if one is seat or self.in_touch(one.host, seat.host)]

    def _has_quorum(self, seat: Seat) -> bool:
        return seat.up and not seat.learner and len(self._reached_by(seat)) > len(self.voters) // 2

    def _tell_removed(self, seat: Seat) -> None:
        if not seat.up or self.belongs(seat.host) or self.seats.get(seat.host) is not seat:
            return
        if not any(self.in_touch(seat.host, one.host) for one in self.members.values()):
            return  # looked at again when the network changes
        seat.told, seat.up = True, False
        self._trace.note(seat.host, f"etcd member {seat.id} ends: it was removed")
        self.on_told_removed(seat.host)
        self.refresh()

    # --- elections ---

    def _stand(self) -> None:
        if not self._electing:
            self._electing = True
            self._loop.world_at(self._loop.now_s + self._random.uniform(*ELECTION_S), self._elect)

    def _elect(self) -> None:
        """Let one lead that a majority reaches and whose log is no shorter than theirs."""
        self._electing = False
        if self.leader_id:
            return
        able = [seat for seat in self.voters if self._has_quorum(seat) and self._may_win(seat)]
        if able:
            self._lead(self._random.choice(able))

    def _may_win(self, seat: Seat) -> bool:
        own = self.progress(seat)
        return sum(self.progress(one) <= own for one in self._reached_by(seat)) > len(self.voters) // 2

    def _lead(self, seat: Seat) -> None:
        self.leader_id = seat.id
        self._term += 1
        self._trace.note(seat.host, "leads etcd")
        self.on_elected()
        self.refresh()

    # --- what a coordinator may ask of its own member ---

    def status(self, host: str) -> MemberStatus:
        seat = self._own(host)
        served = seat.served and self.leader_id
        return MemberStatus(
            member_id=seat.id, cluster_id=CLUSTER_ID, version="3.5.33", db_size_bytes=0, db_in_use_bytes=0,
            leader_id=self.leader_id if served else 0, raft_term=self._term,
            raft_index=self.index if served else seat.reached, raft_applied_index=self.progress(seat),
            revision=self._revision(), is_learner=seat.learner, errors=(),
        )  # fmt: skip

    def list(self) -> tuple[Member, ...]:
        return tuple(
            Member(seat.id, seat.name, (seat.peer_url,), (f"http://{seat.host}:3",) if seat.name else (), seat.learner)
            for _, seat in sorted(self.members.items())
        )

    def add_learner(self, by: str, peer_url: str) -> Member:
        self.tell(AskedMembers("add", None, by))
        if any(seat.peer_url == peer_url for seat in self.members.values()):
            raise PeerUrlTaken("Peer URLs already exists")
        if not all(self._touch.lasts(by, voter.host, self._loop.now_s) for voter in self.voters):
            raise ReconfigurationUnsafe("unhealthy cluster")
        if any(seat.learner for seat in self.members.values()):
            raise TooManyLearners("too many learner members in cluster")
        seat = self._seat(host_of(peer_url), peer_url, learner=True)
        seat.catches_up_s = self._random.uniform(*CATCH_UP_S)
        self._change("add", seat, by)
        return next(member for member in self.list() if member.id == seat.id)

    def promote(self, by: str, member_id: int) -> None:
        seat = self.members.get(member_id)
        self.tell(AskedMembers("promote", seat, by))
        if seat is None:
            raise MemberNotFound("member not found")
        if not seat.learner:
            raise MemberNotLearner("can only promote a learner member")
        if self.progress(seat) < READY_SHARE * self.index:
            raise LearnerNotReady("can only promote a learner member which is in sync with leader")
        self._change("promote", seat, by)

    def remove(self, by: str, member_id: int) -> None:
        seat = self.members.get(member_id)
        self.tell(AskedMembers("remove", seat, by))
        if seat is None:
            raise MemberNotFound("member not found")
        if not seat.learner:
            self._refuse_removal(by, seat)
        self._change("remove", seat, by)

    def _refuse_removal(self, by: str, seat: Seat) -> None:
        left = len(self.voters) - 1
        if not left:
            raise ReconfigurationUnsafe("re-configuration failed due to not enough started members")
        if seat.host != by and not self.in_touch(by, seat.host):
            return  # not part of the active quorum
        now_s = self._loop.now_s
        active = sum(self._touch.lasts(by, voter.host, now_s) for voter in self.voters)
        if active - 1 < 1 + left // 2:
            raise ReconfigurationUnsafe("unhealthy cluster")

    def move_leader(self, by: str, target_id: int) -> None:
        leader, target = self.leader, self.members.get(target_id)
        if leader is None or leader.host != by:
            raise NotRaftLeader("not leader")
        if target is None or target.learner or not self.in_touch(by, target.host) or not self._has_quorum(target):
            raise Conflict("bad leader transferee")
        self._lead(target)

    def _change(self, change: str, seat: Seat, by: str) -> None:
        before = frozenset(voter.host for voter in self.voters)
        leader = self.leader
        assert leader is not None, "no change without a leader"
        present = {one.host for one in self._reached_by(leader)}
        if seat.up and self.in_touch(seat.host, leader.host):
            present.add(seat.host)
        match change:
            case "add":
                self.members[seat.id] = seat
            case "promote":
                seat.learner = False
            case "remove":
                self.progress(seat)
                del self.members[seat.id]
        self._changes += 1
        self._trace.note(by, f"{change} member {seat.id} of {seat.host}")
        after = frozenset(voter.host for voter in self.voters)
        self.refresh()
        self.tell(MembersChanged(change, seat.host, by, before, after, frozenset(present)))

    def _own(self, host: str) -> Seat:
        seat = self.seats.get(host)
        if seat is None or not seat.up:
            raise Unavailable(f"the member at {host} cannot be reached", hint="is etcd running?")
        return seat

    def _seat(self, host: str, peer_url: str, *, learner: bool) -> Seat:
        self._last_id += 1  # ids are never used again
        return Seat(self._last_id, host, peer_url, learner)


def peer_url_of(host: str) -> str:
    return f"http://{host}:2"


def host_of(address: str) -> str:
    """Return the host of a URL or an address."""
    return address.rpartition("//")[2].partition(":")[0]


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)
