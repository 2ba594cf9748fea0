"""Whatever comes and goes: the autopilot never lowers a healthy quorum, and ends with an odd number of voters.

A small world stands for etcd and the hosts: it obeys the planner's steps as etcd would, refusing what etcd refuses
(a new member while a voter is away), while coordinators come, die, return, and lose their data in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless.core.membership.chronicle import Chronicle, begin, follow
from cloudless.core.membership.observed import JoinView, MemberView, Observed, ReplacementView
from cloudless.core.membership.planner import MembershipDecision, MembershipStep, plan_membership
from cloudless.core.membership.quorum import quorum_of
from cloudless.core.model import AutopilotRecord

LOOK_S = 1.0
STARTING_S = 3.0
INDEX = 1_000
SETTINGS = AutopilotRecord(dead_after_s=20.0, stabilization_s=5.0, learner_stall_s=30.0)
NAMES = tuple(f"c{number}" for number in range(1, 10))


@dataclass
class World:
    """`members`: (id, name, learner) of each. `alive`: the coordinators that run. `lost`: those of
    them that came back without their data. `asking`: those that ask to join."""

    members: dict[int, tuple[str, bool]] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    asking: dict[str, int] = field(default_factory=dict)
    given_up: dict[str, ReplacementView] = field(default_factory=dict)
    wanted: AutopilotRecord = SETTINGS
    now_s: float = 0.0
    next_id: int = 100
    past: Chronicle = field(default_factory=lambda: begin(0.0))
    removed_voters: int = 0
    votes_since_s: dict[int, float] = field(default_factory=dict)

    def observe(self) -> Observed:
        return Observed(
            members=tuple(self._view(id, name, learner) for id, (name, learner) in sorted(self.members.items())),
            own_member_id=self.leader(),
            raft_index=INDEX,
            joins=tuple(self._join(name, at) for name, at in sorted(self.asking.items())),
            replacements=tuple(self.given_up.values()),
        )

    def _join(self, name: str, at: int) -> JoinView:
        held = next((id for id, (holder, _) in self.members.items() if holder == name and name not in self.lost), 0)
        answers = name in self.alive
        return JoinView(name, name, at, answers, name, held if answers else 0)

    def _view(self, id: int, name: str, learner: bool) -> MemberView:
        """One that was just promoted has no lease and no links yet."""
        starting = self.now_s < self.votes_since_s.get(id, -STARTING_S) + STARTING_S
        lives = name in self.alive and name not in self.lost and not starting
        return MemberView(
            id=id, name=name, peer_urls=(f"http://{name}",), learner=learner, started=True, linked=lives,
            registered=lives and not learner, raft_index=INDEX if lives else 0,
        )  # fmt: skip

    def voters(self) -> dict[str, int]:
        return {name: id for id, (name, learner) in self.members.items() if not learner}

    def healthy(self) -> int:
        return len((self.voters().keys() & self.alive) - self.lost)

    def has_quorum(self) -> bool:
        return self.healthy() >= quorum_of(len(self.voters()))

    def leader(self) -> int:
        healthy = (self.voters().keys() & self.alive) - self.lost
        return min((id for name, id in self.voters().items() if name in healthy), default=0)

    def look(self) -> MembershipDecision | None:
        """Let the leader look once and do its step; None without a quorum, for then nobody leads."""
        self.now_s += LOOK_S
        if not self.has_quorum():
            return None
        seen = self.observe()
        self.past = follow(self.past, seen, self.wanted.catch_up_lag_max, self.now_s)
        decision = plan_membership(seen, self.wanted, self.past)
        self._obey(decision)
        return decision

    def _obey(self, decision: MembershipDecision) -> None:
        match decision.step:
            case MembershipStep.PROMOTE:
                name, learner = self.members[decision.member_id]
                assert learner
                self.members[decision.member_id] = (name, False)
                self.votes_since_s[decision.member_id] = self.now_s
                assert self.has_quorum(), "a promotion cost the quorum"
                assert len(self.voters()) <= self.wanted.voters_max
            case MembershipStep.REMOVE:
                name, learner = self.members.pop(decision.member_id)
                assert name not in self.alive or name in self.lost, f"{name} lives and was removed"
                self.lost.discard(name)
                self.removed_voters += not learner
                assert self.has_quorum(), "a removal cost the quorum"
                there = len([n for n in self.asking if n in self.alive]) + sum(m[1] for m in self.members.values())
                assert len(self.voters()) + there >= min(self.wanted.min_quorum, len(self.voters()) + 1)
            case MembershipStep.DROP_LEARNER:
                assert self.members.pop(decision.member_id)[1]
            case MembershipStep.ADD_LEARNER:
                assert not any(learner for _, learner in self.members.values()), "one learner at a time"
                if self.healthy() == len(self.voters()):  # else etcd refuses
                    self.next_id += 1
                    self.members[self.next_id] = (decision.node_id, True)
            case MembershipStep.FORGET_JOIN:
                del self.asking[decision.node_id]
            case MembershipStep.FORGET_REPLACEMENT:
                del self.given_up[decision.node_id]

    def happen(self, what: str, name: str) -> None:
        member = next((id for id, (held, _) in self.members.items() if held == name), 0)
        match what:
            case "die":
                self.alive.discard(name)
                if name in self.lost:
                    self.asking.pop(name, None)
            case "return" if member and name not in self.lost:
                self.alive.add(name)
            case "come" if not member:
                self.alive.add(name)
                self.asking.setdefault(name, int(self.now_s))
            case "empty" if member and name not in self.alive:
                self.alive.add(name)
                self.lost.add(name)
                self.asking.setdefault(name, int(self.now_s))
            case "give-up" if name in self.voters() and name not in self.alive:
                self.given_up[name] = ReplacementView(name, member, "", len(self.voters()))


HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(["die", "return", "come", "empty", "give-up"]), st.sampled_from(NAMES), st.integers(0, 40)
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(founders=st.sampled_from([1, 3, 5]), happenings=HAPPENINGS, even=st.booleans(), cleanup=st.booleans())
def test_no_step_ever_costs_a_quorum(
    founders: int, happenings: list[tuple[str, str, int]], even: bool, cleanup: bool
) -> None:
    world = build_world(founders, replace(SETTINGS, even_voters=even, cleanup_dead_voters=cleanup))
    for what, name, looks in happenings:
        world.happen(what, name)
        for _ in range(looks):
            world.look()
    assert len(world.voters()) <= world.wanted.voters_max


@settings(max_examples=100, deadline=None)
@given(founders=st.sampled_from([1, 3, 5]), comers=st.permutations(NAMES), count=st.integers(0, 4))
def test_when_all_is_well_every_join_is_settled_and_the_voters_are_odd(
    founders: int, comers: list[str], count: int
) -> None:
    world = build_world(founders, SETTINGS)
    coming = [name for name in comers if name not in world.alive][:count]
    for name in coming:
        world.happen("come", name)
        world.look()
    decisions = [world.look() for _ in range(60)]
    assert len(world.voters()) % 2 == 1
    assert len(world.voters()) == min(SETTINGS.voters_max, (founders + len(coming) - 1) // 2 * 2 + 1)
    last = decisions[-1]
    assert last is not None
    assert last.step is MembershipStep.WAIT
    waiting = {name for name in coming if name not in world.voters()}
    assert waiting <= {wait.subject for wait in last.waits}, "who waits is told why"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([3, 5, 7]), st.data())
def test_a_dead_voter_is_replaced_by_who_stands_by_and_the_healthy_are_never_fewer(
    founders: int, data: st.DataObject
) -> None:
    world = build_world(founders, SETTINGS)
    victim = data.draw(st.sampled_from(sorted(world.voters())))
    world.happen("die", victim)
    world.happen("come", "c9")
    least = world.healthy()
    for _ in range(60):
        world.look()
        assert world.healthy() >= least
    assert victim not in world.voters()
    assert "c9" in world.voters()
    assert world.healthy() == founders


def build_world(founders: int, wanted: AutopilotRecord) -> World:
    world = World(wanted=wanted)
    for number, name in enumerate(NAMES[:founders], start=1):
        world.members[number] = (name, False)
        world.alive.add(name)
    return world
