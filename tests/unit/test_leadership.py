"""The election among several coordinators over one store: one effective leader, quick hand-over, always an end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from typing import NoReturn

import pytest
from loguru import logger

from cloudless.coordinator import peers
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.leadership import Leadership
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.election import CONFIDENCE, Role
from cloudless.errors import CloudlessError, LeaseLost, Unavailable
from cloudless.ports import Delete, Txn
from cloudless.testing.faulty_store import REFUSED, REQUEST_LOST, Fault, FaultyStore, always, script
from cloudless.testing.memory_store import MemoryStore
from cloudless.testing.virtual_time import eventually, freeze, run_virtually, running, virtually
from tests.unit.coordinators import CLOCK, LEASE_SWEEP_S, Coordinator, Election, electing

LEASE_TTL_S = 4
SCHEDULES_A_BLOCK = 20


@virtually
async def test_one_of_several_leads_and_the_others_know_it() -> None:
    async with electing() as election:
        leader = await election.leader(within_s=1)
        await asyncio.sleep(15)
        assert election.leaders() == [leader]
        assert leader.terms == [leader.leadership.leading_term]
        assert leader.leadership.role is Role.LEADER
        for other in election.others():
            seen = other.leadership.leader()
            assert seen is not None
            assert (seen.record.coordinator_id, seen.term) == (leader.id, leader.terms[0])
            assert other.leadership.role is Role.CANDIDATE


@virtually
async def test_who_resigns_hands_over_at_once_to_a_higher_term() -> None:
    async with electing() as election:
        for _ in range(2):
            leader = await election.leader()
            term = leader.leadership.leading_term
            leader.leadership.stop()
            began_s = CLOCK.monotonic_s()
            successor = await election.leader(but=leader, within_s=0.5)
            assert CLOCK.monotonic_s() - began_s < 0.5
            assert successor.leadership.leading_term > term
            assert leader.leadership.stopped.is_set()
            assert leader.leadership.leading_term == 0


@virtually
async def test_a_leader_that_cannot_renew_stops_acting_before_its_lease_can_have_run_out() -> None:
    async with electing() as election:
        leader = await election.leader()
        lease = leader.leadership._lease
        leader.store.cut = True
        stopped_s = await eventually(lambda: leader.leadership.leading_term == 0)
        assert stopped_s <= LEASE_TTL_S * CONFIDENCE + 0.02
        await asyncio.sleep(0.05)
        assert leader.leadership._scope is None, "its controllers are gone, not only silent"
        assert lease is not None
        assert await election.memory.keep_alive(lease.id, timeout_s=1), "the store still holds its lease"
        successor = await election.leader(but=leader)
        leader.store.cut = False
        await asyncio.sleep(10)
        assert election.leaders() == [successor]
        assert leader.leadership.role is Role.CANDIDATE


@virtually
async def test_a_dead_leaders_place_is_taken_when_its_lease_has_run_out() -> None:
    async with electing() as election:
        leader = await election.leader()
        leader.store.cut = True
        began_s = CLOCK.monotonic_s()
        await election.leader(but=leader)
        assert CLOCK.monotonic_s() - began_s < LEASE_TTL_S + LEASE_SWEEP_S + 1


@virtually
async def test_a_leaders_write_that_arrives_after_its_term_is_fenced() -> None:
    async with electing() as election:
        leader = await election.leader()
        leader.store.choose = always(Fault(request_delay_s=2.0, answer_delay_s=0.0))
        await asyncio.sleep(0.2)
        candidate = leader.leadership.leader()
        assert candidate is not None
        await election.memory.txn(Txn(then=(Delete(candidate.key),)), timeout_s=1)
        successor = await election.leader(but=leader, within_s=1)
        written = len([done for done in election.history if done.coordinator_id == leader.id])
        await asyncio.sleep(3)
        assert len([done for done in election.history if done.coordinator_id == leader.id]) == written
        assert election.leaders() == [successor]
        assert successor.leadership.leader_changes_total == 2


@pytest.mark.parametrize("seconds", [1.0, 3.0, 5.0, 60.0])
@virtually
async def test_a_frozen_process_does_nothing_of_its_old_term_after_another_took_over(seconds: float) -> None:
    async with electing(1) as election:
        frozen = await election.leader()
        term = frozen.leadership.leading_term
        written = len(election.history)
        freeze(seconds)
        if seconds > LEASE_TTL_S:
            assert frozen.leadership.leading_term == 0, "whoever asks is told the truth at once"
            await election.memory.expire_leases()  # what the store did meanwhile; nothing else has run yet
            await asyncio.sleep(5)
            assert not [done for done in election.history[written:] if done.term == term]
        else:
            await asyncio.sleep(5)
        assert await election.leader() is frozen


@virtually
async def test_office_can_be_given_to_one_by_name_and_by_anybody() -> None:
    async with electing(5) as election:
        leader = await election.leader()
        chosen = election.others()[-1]
        await asyncio.sleep(1)
        await election.others()[0].leadership.transfer(chosen.id, timeout_s=1)
        assert await election.leader(but=leader, within_s=1) is chosen
        before = chosen.leadership.leading_term
        await asyncio.sleep(1)
        await chosen.leadership.transfer("", timeout_s=1)
        assert (await election.leader(but=chosen, within_s=1)).leadership.leading_term > before
        await asyncio.sleep(1)
        assert len(election.memory_queue()) == 5, "all who made way stand again"
        for nobody in ("nobody", (await election.leader()).id):
            with pytest.raises(Unavailable):
                await chosen.leadership.transfer(nobody, timeout_s=1)


@virtually
async def test_a_controllers_bug_costs_the_term_not_the_coordinator() -> None:
    async with electing() as election:
        leader = await election.leader()
        leader.crash = True
        successor = await election.leader(but=leader, within_s=2)
        await asyncio.sleep(2)
        assert leader.leadership.role is Role.CANDIDATE
        successor.leadership.stop()
        await election.leader(but=successor, within_s=1)


@virtually
async def test_who_is_alone_leads_again_after_a_controllers_bug_under_a_new_term() -> None:
    async with electing(1) as election:
        leader = await election.leader()
        leader.crash = True
        leader.store.choose = script(REQUEST_LOST)
        await eventually(lambda: len(leader.terms) == 2)
        await asyncio.sleep(5)
        assert leader.leadership.leading_term == leader.terms[-1]


@virtually
async def test_deleting_the_leaders_key_deposes_it_at_once() -> None:
    async with electing() as election:
        leader = await election.leader()
        candidate = leader.leadership.leader()
        assert candidate is not None
        await election.memory.txn(Txn(then=(Delete(candidate.key),)), timeout_s=1)
        await election.leader(but=leader, within_s=0.5)
        await eventually(lambda: leader.leadership.role is Role.CANDIDATE, within_s=1)


# --- leases and registration ---


@virtually
async def test_registration_is_repeated_until_it_succeeds_and_comes_before_standing() -> None:
    memory = MemoryStore(CLOCK.monotonic_s)
    store, tries = FaultyStore(memory), list[int]()
    replica = Replica(store, CLOCK)

    async def register(lease_id: int) -> None:
        assert not replica.machine.candidates()
        tries.append(lease_id)
        if len(tries) < 4:
            raise Unavailable("the member does not answer yet") if len(tries) != 2 else LeaseLost("gone")

    async def lead(term: int, committer: Committer) -> None:
        await asyncio.Event().wait()

    leadership = Leadership("c1", store, replica, CLOCK, lead, on_lease=register)
    async with running(replica.run(), leadership.run()):
        await eventually(lambda: leadership.leading_term > 0)
        await asyncio.sleep(10)
    assert len(tries) == 4
    assert len(set(tries)) == 2, "a lost lease is never used again"


@virtually
async def test_a_lease_revoked_by_others_ends_the_term_and_a_new_one_begins_under_a_new_lease() -> None:
    async with electing(1) as election:
        leader = await election.leader()
        lease_id, term = leader.leadership.lease_id, leader.leadership.leading_term
        await election.memory.revoke(lease_id, timeout_s=1)
        await eventually(lambda: leader.leadership.leading_term > term)
        assert leader.leadership.lease_id != lease_id
        assert keys.coordinator(leader.id) in election.memory._live


@virtually
async def test_a_leader_whose_store_renews_leases_and_does_nothing_else_makes_way() -> None:
    async with electing() as election:
        leader = await election.leader()
        leader.store.cut = True
        leader.store.keep_alive = election.memory.keep_alive  # type: ignore[method-assign]
        await election.leader(but=leader, within_s=12)
        leader.store.cut = False
        await eventually(lambda: len(election.memory_queue()) == 3)
        assert len(election.leaders()) == 1


# --- stopping ---


@pytest.mark.parametrize(
    "calls", [("txn",), ("revoke",), ("grant", "keep_alive"), ("txn", "revoke", "current_revision")]
)
@pytest.mark.parametrize("fault", [REQUEST_LOST, REFUSED])
@pytest.mark.parametrize("before_s", [0.0, 0.01, 2.0])
def test_stopping_always_finishes(calls: tuple[str, ...], fault: Fault, before_s: float) -> None:
    async def scenario() -> None:
        one = Coordinator(
            "c1", FaultyStore(MemoryStore(CLOCK.monotonic_s), always(fault, calls) if not before_s else script()), []
        )
        run = asyncio.create_task(one.run())
        await asyncio.sleep(before_s)
        one.store.choose = always(fault, calls)
        one.leadership.stop()
        await asyncio.wait_for(one.leadership.stopped.wait(), 10)
        await run

    run_virtually(scenario())


@virtually
async def test_stopping_finishes_before_any_state_was_loaded() -> None:
    one = Coordinator("c1", FaultyStore(MemoryStore(CLOCK.monotonic_s)), [])
    one.store.cut = True
    run = asyncio.create_task(one.run())
    await asyncio.sleep(1)
    one.leadership.stop()
    await asyncio.wait_for(run, 5)


# --- peers that have lost the leader ---


class FakeLink:
    """A link that is up until the test says otherwise."""

    lost_pairs: set[tuple[str, str]]

    def __init__(self, coordinator_id, address, news, clock, changed, settings, dial) -> None:
        self._pair, self.address, self._changed = (news.own_id, address), address, changed
        self.up, self.lost = True, False

    async def run(self) -> None:
        while True:
            lost = self._pair in self.lost_pairs
            if lost != self.lost:
                self.up, self.lost = not lost, lost
                self._changed()
            await CLOCK.sleep(0.1)


def nobody(address: str) -> NoReturn:
    raise AssertionError(f"{address} was dialled by a link that is not one of the test's")


def build_peers(one: Coordinator, voters: frozenset[str]) -> peers.Peers:
    def lease_id() -> int:
        return one.leadership.lease_id

    heard = HeardTable(CLOCK)
    return peers.Peers(
        one.id, one.store, one.replica, heard, CLOCK, lease_id=lease_id, voters=lambda: voters, dial=nobody
    )


@pytest.mark.parametrize(("losers", "deposed"), [(1, False), (2, True)])
@virtually
async def test_a_majority_that_has_lost_the_leader_deposes_it_long_before_its_lease_ends(
    losers: int, deposed: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "Link", FakeLink)
        FakeLink.lost_pairs = set()
        async with electing() as election:
            voters = frozenset(one.id for one in election.all)
            doubters = [build_peers(one, voters) for one in election.all]
            async with running(*(doubter.run() for doubter in doubters)):
                leader = await election.leader()
                await asyncio.sleep(2)
                FakeLink.lost_pairs = {(one.id, leader.id) for one in election.others()[:losers]}
                if deposed:
                    await election.leader(but=leader, within_s=1)
                else:
                    await asyncio.sleep(10)
                    assert election.leaders() == [leader]
                    FakeLink.lost_pairs = set()
                await asyncio.sleep(5)
                assert sum(doubter.deposed_total for doubter in doubters) == deposed
                left = [key for key in election.memory._live if key.startswith(keys.SUSPICIONS)]
                assert not left, "what was said is taken back, or goes with the term"


# --- random faults ---


def random_fault(dice: random.Random) -> Fault:
    return dice.choice(
        [
            Fault(), Fault(), Fault(), Fault(), Fault(refused=True), Fault(request_lost=True), Fault(answer_lost=True),
            Fault(request_delay_s=dice.uniform(0, 6)), Fault(answer_delay_s=dice.uniform(0, 2)),
        ]
    )  # fmt: skip


async def torment(election: Election, dice: random.Random) -> None:
    """Break what can be broken for a while."""
    for _ in range(25):
        one = dice.choice(election.all)
        match dice.randrange(9):
            case 0:
                one.store.cut = not one.store.cut
            case 1:
                one.store.choose = lambda call: random_fault(dice)
            case 2:
                one.store.choose = script()
            case 3:
                one.store.break_watches()
            case 4:
                one.store.hang_watches()
            case 5:
                one.crash = True
            case 6 if queue := election.memory_queue():
                await election.memory.txn(Txn(then=(Delete(queue[0]),)), timeout_s=1)
            case 7:
                freeze(dice.uniform(0, 8))
            case _:
                chosen = dice.choice(election.all)
                with contextlib.suppress(CloudlessError):
                    await one.leadership.transfer(chosen.id, timeout_s=0.2)
        await asyncio.sleep(dice.uniform(0, 1.5))


@pytest.fixture
def quiet() -> Iterator[None]:
    """Say nothing: thousands of elections fill no log."""
    logger.disable("cloudless")
    yield
    logger.enable("cloudless")


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("block", range(10))
def test_random_faults_never_make_two_effective_leaders_and_one_leads_after_they_end(block: int) -> None:
    async def scenario(seed: int) -> None:
        dice = random.Random(seed)
        async with electing() as election:
            await torment(election, dice)
            for one in election.all:
                one.store.cut = False
                one.store.choose = script()
            await asyncio.sleep(15)
            assert len(election.leaders()) == 1, f"seed {seed}"
            count = len(election.history)
            await asyncio.sleep(5)
            assert len(election.history) > count, f"seed {seed}"
            election.assert_safe()

    for seed in range(block * SCHEDULES_A_BLOCK, (block + 1) * SCHEDULES_A_BLOCK):
        run_virtually(scenario(seed))
