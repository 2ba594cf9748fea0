"""The simulation's checkers of members and of trust let what is right pass and refuse a planted violation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloudless.core import keys
from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.identity.renewal import Validity
from cloudless.core.model import AuthorityPhase, AuthorityPurpose, AuthorityRecord, IdentityRecord, Role, TokenRecord
from cloudless.testing.sim import checkers
from cloudless.testing.sim.checkers import members, trust
from cloudless.testing.sim.checkers.checker import Checker
from cloudless.testing.sim.etcd_cluster import AskedMembers, MembersChanged, Seat
from cloudless.testing.sim.happenings import Acted, Disturbed, LetIn, Looked, Renewed, Soothed, TookOffice
from cloudless.testing.sim.options import Membership
from tests.unit.sight import Sight, life, process

NAMES = sorted(checker.__name__ for checker in (*checkers.OF_MEMBERS, *checkers.OF_TRUST))


class MemberSight(Sight):
    """A world of hosts whose members are all in touch until they are taken out of it."""

    def __init__(self, checker: type[Checker], *hosts: str, **membership: object) -> None:
        super().__init__(checker)
        self.options.lease_ttl_s = 4
        self.network = SimpleNamespace(weather=SimpleNamespace(lost=0.0, refused=0.0))
        seats = {
            host: Seat(id, host, f"http://{host}:2", learner=False, name=host, up=True, served=True)
            for id, host in enumerate(hosts, start=1)
        }
        self.etcd = SimpleNamespace(
            seats=seats, members={seat.id: seat for seat in seats.values()}, index=1_000,
            progress=lambda seat: seat.reached, in_touch=lambda one, other: True,
        )  # fmt: skip
        self.etcd.voters = list(seats.values())
        self.roster = SimpleNamespace(
            cluster=self.etcd,
            wanted=list(hosts),
            has_data=lambda host: host in self.etcd.seats,
            membership=replace(Membership(), **membership),  # type: ignore[arg-type]
        )
        for host in hosts:
            running = life(host)
            running.serves, running.leadership = True, SimpleNamespace(leading_term=0)
            self.coordinators[host] = running

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.loop.now_s += 0.5
            self.tell(Looked())

    def learner(self, host: str, reached: int) -> Seat:
        seat = Seat(9, host, f"http://{host}:2", learner=True, name=host, up=True, served=True, reached=reached)
        self.etcd.seats[host] = self.etcd.members[9] = seat
        return seat


def changed(change: str, host: str, before: str, after: str, present: str) -> MembersChanged:
    """Return a change; voters as words in a string."""
    return MembersChanged(change, host, "c1", *(frozenset(names.split()) for names in (before, after, present)))


def test_a_change_that_leaves_less_than_a_majority_present_is_refused() -> None:
    sight = MemberSight(members.QuorumKept, "c1", "c2", "c3")
    sight.pass_time(1)
    sight.etcd.seats["c3"].served = False
    # It may have gone so lately that the leader does not know yet.
    sight.tell(changed("remove", "c2", "c1 c2 c3", "c1 c3", "c1 c2"))
    sight.pass_time(5)
    sight.tell(changed("remove", "c3", "c1 c2 c3", "c1 c2", "c1 c2"))
    sight.refuses(changed("remove", "c2", "c1 c2 c3", "c1 c3", "c1 c2"))


def test_asking_for_a_second_learner_is_refused() -> None:
    sight = MemberSight(members.OneLearner, "c1")
    sight.tell(AskedMembers("add", None, "c1"))
    sight.learner("c2", 0)
    sight.tell(changed("add", "c2", "c1", "c1", "c1"))
    sight.tell(AskedMembers("add", None, "c1"))
    sight.loop.now_s += 5
    sight.refuses(AskedMembers("add", None, "c1"))


def test_asking_to_promote_one_that_lags_or_is_away_is_refused() -> None:
    sight = MemberSight(members.PromotedInStep, "c1", lag_max=5)
    learner = sight.learner("c2", reached=998)
    sight.tell(sight.stored())
    sight.pass_time(4)
    sight.tell(AskedMembers("promote", learner, "c1"))
    learner.reached = 990
    sight.refuses(AskedMembers("promote", learner, "c1"))
    learner.reached, learner.served = 998, False
    sight.tell(AskedMembers("promote", learner, "c1"))
    sight.pass_time(4)
    sight.refuses(AskedMembers("promote", learner, "c1"))


def test_removing_one_that_was_well_lately_or_too_many_is_refused() -> None:
    sight = MemberSight(members.DeadLongEnough, "c1", "c2", "c3", dead_after_s=8.0, min_quorum=2)
    asked = AskedMembers("remove", sight.etcd.seats["c3"], "c1")
    sight.pass_time(5)
    sight.etcd.seats["c3"].served = False
    sight.pass_time(4)
    sight.refuses(asked)
    sight.pass_time(4)
    sight.tell(asked)
    sight.roster.wanted.remove(sight.etcd.voters.pop(0).host)
    sight.refuses(asked)
    sight.tell(Acted("remove", "c3"))
    sight.tell(asked)


def test_a_removed_one_that_writes_takes_office_or_stays_in_it_is_refused() -> None:
    sight = MemberSight(members.RemovedIsOut, "c1", "c2", "c3")
    gone = sight.coordinators["c3"]
    sight.tell(changed("remove", "c3", "c1 c2 c3", "c1 c2", "c1 c2 c3"))
    sight.tell(sight.stored(by=process("c1")))
    sight.refuses(sight.stored(by=process("c3")))
    sight.tell(TookOffice(gone, 5, 9))
    gone.leadership.leading_term = 5  # type: ignore[attr-defined]
    sight.tell(Looked())
    sight.loop.now_s += 7
    sight.refuses(Looked())
    sight.refuses(TookOffice(gone, 5, 9))
    sight.tell(changed("add", "c3", "c1 c2", "c1 c2", "c1 c2"))
    sight.tell(TookOffice(gone, 5, 9))


# --- trust ---

TOKEN = TokenRecord(id="abcdefghij", secret_hash="h", role=Role.AGENT, uses_total=2, uses_left=0)


def identity(name: str, key: str = "k", **fields: object) -> IdentityRecord:
    record = IdentityRecord(name=name, role=Role.AGENT, key_hashes=(f"{key}-{name}",), enrolled_by=TOKEN.id)
    return replace(record, **fields)  # type: ignore[arg-type]


def test_a_third_identity_by_a_token_of_two_uses_is_refused() -> None:
    sight = Sight(trust.TokenUses)
    sight.cluster.put(keys.token(TOKEN.id), TOKEN)
    for name in ("n1", "n2"):
        sight.cluster.put(keys.identity("agent", name), identity(name))
        sight.tell(sight.stored(before={keys.identity("agent", name): None}))
    sight.cluster.put(keys.identity("agent", "n3"), identity("n3"))
    sight.refuses(sight.stored(before={keys.identity("agent", "n3"): None}))


def test_an_identity_whose_token_was_not_counted_is_refused() -> None:
    sight = Sight(trust.TokenUses)
    sight.cluster.put(keys.token(TOKEN.id), replace(TOKEN, uses_left=2))
    sight.cluster.put(keys.identity("agent", "n1"), identity("n1"))
    sight.refuses(sight.stored(before={keys.identity("agent", "n1"): None}))


def knowing(sight: Sight) -> SimpleNamespace:
    """Return a coordinator whose state is the store's."""
    one = life("c1")
    one.replica = SimpleNamespace(machine=sight.truth, loaded=SimpleNamespace(is_set=lambda: True))
    return one


def test_letting_in_who_is_revoked_unknown_or_has_another_key_is_refused() -> None:
    sight = Sight(trust.LockedOut)
    one = knowing(sight)
    peer = SimpleNamespace(identity=Identity("x", IdentityKind.AGENT, "n1"), key_hash="k-n1")
    sight.refuses(LetIn(one, "Session", peer))
    sight.cluster.put(keys.identity("agent", "n1"), identity("n1"))
    sight.tell(LetIn(one, "Session", peer))
    sight.cluster.put(keys.identity("agent", "n1"), identity("n1", key="other"))
    sight.refuses(LetIn(one, "Session", peer))
    sight.cluster.put(keys.identity("agent", "n1"), identity("n1", revoked_at_ms=5))
    sight.refuses(LetIn(one, "Session", peer))


def authority(purpose: AuthorityPurpose, generation: int, phase: AuthorityPhase) -> AuthorityRecord:
    return AuthorityRecord(
        id=f"{purpose.value.lower().replace('_', '-')}-{generation}", purpose=purpose, generation=generation,
        phase=phase, phase_since_ms=0, certificate_pem=f"PEM {generation}", sealed_key=b"", sealed_with="", pin="",
        not_after_ms=0, leaf_lifetime_s=60,
    )  # fmt: skip


def test_two_authorities_that_sign_for_one_purpose_are_refused() -> None:
    sight = Sight(trust.OneIssuer)
    for purpose in AuthorityPurpose:
        record = authority(purpose, 1, AuthorityPhase.ISSUING)
        sight.cluster.put(keys.authority(record.id), record)
    first = {keys.authority("cluster-1"): None}
    sight.tell(sight.stored(before=first))
    fresh = authority(AuthorityPurpose.CLUSTER, 2, AuthorityPhase.DISTRIBUTING)
    sight.cluster.put(keys.authority(fresh.id), fresh)
    sight.tell(sight.stored(before={keys.authority(fresh.id): None}))
    sight.cluster.put(keys.authority(fresh.id), replace(fresh, phase=AuthorityPhase.ISSUING))
    sight.refuses(sight.stored(before={keys.authority(fresh.id): fresh}))


def held(not_after_ms: int, pem: bytes = b"leaf PEM 1") -> SimpleNamespace:
    return SimpleNamespace(chain_pem=pem, validity=Validity(0, not_after_ms))


def test_dropping_an_authority_that_somebody_still_needs_is_refused() -> None:
    sight = Sight(trust.TrustedToTheEnd)
    sight.clocks = {"n1": SimpleNamespace(wall_ms=lambda: 1_000)}  # type: ignore[attr-defined]
    sight.options.certificates = SimpleNamespace(lifetime_s=1.0)
    disk = SimpleNamespace(held=held(900))
    sight.trust = SimpleNamespace(disks={"n1": disk}, is_waiting=lambda name: False)  # type: ignore[attr-defined]
    gone = {keys.authority("cluster-1"): authority(AuthorityPurpose.CLUSTER, 1, AuthorityPhase.RETIRING)}
    sight.tell(sight.stored(before=gone))
    disk.held = held(1_100)
    sight.refuses(sight.stored(before=gone))
    disk.held = held(1_100, b"leaf PEM 2")
    sight.tell(sight.stored(before=gone))
    sight.options.certificates.lifetime_s = 10.0  # a short one, of somebody who had heard nothing for long
    disk.held = held(1_100)
    sight.tell(sight.stored(before=gone))


@pytest.mark.parametrize("late", [Renewed("n1", held(900), held(2_000), 1_000), Looked()])
def test_running_out_while_all_is_well_is_refused(late: object) -> None:
    sight = Sight(trust.NeverRunsOut)
    sight.clocks = {"n1": SimpleNamespace(wall_ms=lambda: 1_000)}  # type: ignore[attr-defined]
    sight.living = lambda: [SimpleNamespace(id="n1")]  # type: ignore[attr-defined]
    sight.trust = SimpleNamespace(find_credentials=lambda name: held(1_000))  # type: ignore[attr-defined]
    sight.tell(late)
    sight.tell(Disturbed("cut", "c1>c2"))
    sight.loop.now_s += 60
    sight.tell(late)
    sight.tell(Soothed("cut", "c1>c2"))
    sight.tell(late)
    sight.loop.now_s += 60
    sight.refuses(late)


def test_every_checker_of_members_and_trust_has_been_shown_a_violation() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in NAMES if f".{name}" not in source] == []
