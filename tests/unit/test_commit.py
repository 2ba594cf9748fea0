"""Group commit over a store that loses, delays and repeats: one effect for each request, an answer for every caller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cloudless.coordinator.commit import CommitSettings, Committed, Committer, Fence, PreconditionFailed, with_request
from cloudless.coordinator.leases import RollingLease
from cloudless.core import keys
from cloudless.core.model import NodeSpec, RequestRecord
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.errors import CommitUncertain, Conflict, Fenced, LeaseLost, NoSpace, TooLarge, Unavailable
from cloudless.ports import Delete, Put, Txn
from cloudless.testing.faulty_store import (
    ANSWER_LOST,
    REFUSED,
    REQUEST_LOST,
    Choose,
    Fault,
    FaultyStore,
    always,
    script,
)
from cloudless.testing.memory_store import MemoryStore
from cloudless.testing.virtual_time import VirtualClock, running, virtually

CLOCK = VirtualClock()


def build_store(choose: Choose = lambda call: Fault()) -> tuple[MemoryStore, FaultyStore]:
    memory = MemoryStore(CLOCK.monotonic_s)
    return memory, FaultyStore(memory, choose)


@asynccontextmanager
async def committing(
    store: FaultyStore, fence: Fence | None = None, settings: CommitSettings | None = None
) -> AsyncIterator[Committer]:
    committer = Committer(store, CLOCK, fence=fence, settings=settings)
    async with running(committer.run()):
        yield committer


def create(name: str, label: str = "") -> Change:
    """Return a change that makes a node's spec, unless there is one."""
    return put(name, 0, label)


def put(
    name: str, at_revision: int, label: str = "", lease_id: int = 0, relies_on: tuple[str, int] = ("", 0)
) -> Change:
    key, (other, other_revision) = keys.node_spec(name), relies_on
    also = (Precondition(keys.node_spec(other), other_revision),) if other else ()
    return Change(
        puts=(PutRecord(key, NodeSpec(labels={"l": label}), lease_id),),
        preconditions=(Precondition(key, at_revision), *also),
        reason="test",
    )


def requested(name: str, id: str = "r1", fingerprint: str = "f", answer: str = "first") -> tuple[Change, RequestRecord]:
    request = RequestRecord(id=id, fingerprint=fingerprint, answer=answer)
    change = Change(puts=(PutRecord(keys.node_spec(name), NodeSpec(labels={"l": answer})),), reason="test")
    return with_request(change, request, 0), request


async def revisions(memory: MemoryStore, name: str) -> list[int]:
    """Return the revision of every write to one node's spec there ever was."""
    return [event.kv.mod_revision for event in memory._log if event.kv.key == keys.node_spec(name)]


# --- one effect ---

DROPPED = [
    (),
    (ANSWER_LOST,),
    (REQUEST_LOST,),
    (REFUSED, REFUSED),
    (ANSWER_LOST, REFUSED, ANSWER_LOST),
    (REQUEST_LOST, ANSWER_LOST, REQUEST_LOST),
    (Fault(request_delay_s=2.0), ANSWER_LOST),
    (Fault(request_delay_s=0.5),),
    (Fault(answer_delay_s=5.0), Fault(request_delay_s=1.0)),
]


@pytest.mark.parametrize("faults", DROPPED)
@virtually
async def test_a_request_has_one_effect_whatever_was_dropped(faults: tuple[Fault, ...]) -> None:
    memory, faulty = build_store(script(*faults))
    async with committing(faulty) as committer:
        change, request = requested("n1")
        committed = await committer.commit(change, request=request)
        await asyncio.sleep(10)
        (revision,) = await revisions(memory, "n1")
        assert committed.revision == revision
        again = await committer.commit(change, request=request)
        assert again == Committed(revision, replayed=True, answer="first")
        assert len(await revisions(memory, "n1")) == 1


@virtually
async def test_the_same_request_at_two_coordinators_at_once_has_one_effect() -> None:
    memory, _ = build_store()
    slow, quick = FaultyStore(memory, script(Fault(answer_delay_s=0.2))), FaultyStore(memory)
    change, request = requested("n1")
    async with committing(slow) as one, committing(quick) as two:
        answers = await asyncio.gather(*(c.commit(change, request=request) for c in (one, two, one)))
    (revision,) = await revisions(memory, "n1")
    assert {answer.revision for answer in answers} == {revision}
    assert sorted(answer.replayed for answer in answers) == [False, True, True]


@virtually
async def test_other_content_under_the_same_id_is_a_conflict() -> None:
    memory, faulty = build_store()
    async with committing(faulty) as committer:
        change, request = requested("n1")
        await committer.commit(change, request=request)
        other, other_request = requested("n2", fingerprint="other")
        with pytest.raises(Conflict):
            await committer.commit(other, request=other_request)
    assert not await revisions(memory, "n2")


@virtually
async def test_a_change_that_could_not_be_repeated_is_refused_before_it_is_sent() -> None:
    _, faulty = build_store()
    async with committing(faulty) as committer:
        with pytest.raises(ValueError, match="repeatable"):
            await committer.commit(Change(puts=(PutRecord(keys.node_spec("n1"), NodeSpec()),)))
        with pytest.raises(ValueError, match="remember"):
            await committer.commit(create("n1"), request=RequestRecord(id="r", fingerprint=""))
    assert not faulty.transactions


# --- fence and preconditions ---


@virtually
async def test_no_fenced_write_succeeds_after_a_newer_term_and_the_committer_stays_closed() -> None:
    memory, faulty = build_store()
    key = keys.election(1)
    term = (await memory.txn(Txn(then=(Put(key, b""),)), timeout_s=1)).revision
    async with committing(faulty, Fence(key, term)) as committer:
        await committer.commit(create("before"))
        late = asyncio.create_task(committer.commit(create("late")))
        faulty.choose = script(Fault(request_delay_s=0.3))
        await asyncio.sleep(0.1)
        await memory.txn(Txn(then=(Delete(key),)), timeout_s=1)
        await memory.txn(Txn(then=(Put(key, b""),)), timeout_s=1)
        for change in (late, committer.commit(create("later")), committer.commit(create("latest"))):
            with pytest.raises(Fenced):
                await change
        assert committer.figures.fenced_total == 1, "nothing more is sent once the term is over"
    assert await revisions(memory, "before")
    assert not await revisions(memory, "late")
    assert not await revisions(memory, "later")


@virtually
async def test_a_precondition_that_no_longer_holds_is_named_with_the_stores_revision() -> None:
    memory, faulty = build_store()
    async with committing(faulty) as committer:
        first = await committer.commit(create("n1"))
        second = await committer.commit(put("n1", first.revision))
        for stale in (create("n1"), put("n1", first.revision), put("missing", 7)):
            with pytest.raises(PreconditionFailed) as refusal:
                await committer.commit(stale)
            assert refusal.value.key == stale.puts[0].key
            assert refusal.value.revision == second.revision
    assert len(await revisions(memory, "n1")) == 2


@virtually
async def test_a_lost_answer_to_a_change_without_a_request_never_does_it_twice() -> None:
    memory, faulty = build_store(script(ANSWER_LOST))
    async with committing(faulty) as committer:
        with pytest.raises(PreconditionFailed):
            await committer.commit(create("n1"))
    assert len(await revisions(memory, "n1")) == 1


# --- batches ---


async def together(committer: Committer, *changes: Change) -> list[Committed | BaseException]:
    return await asyncio.gather(*(committer.commit(change) for change in changes), return_exceptions=True)


@virtually
async def test_changes_that_wait_together_travel_together_and_fail_alone() -> None:
    _, faulty = build_store()
    async with committing(faulty) as committer:
        await committer.commit(create("taken"))
        results = await together(committer, create("a"), create("taken"), create("b"))
    assert [type(result) for result in results] == [Committed, PreconditionFailed, Committed]
    assert len(faulty.transactions) == 2


@virtually
async def test_a_store_that_has_become_slow_is_soon_given_the_time_it_takes() -> None:
    slow = Fault()
    _, store = build_store(lambda call: slow)
    async with committing(store) as committer:
        for number in range(50):
            await committer.commit(create(f"quick-{number}"))
        slow = Fault(request_delay_s=0.1, answer_delay_s=0.1)
        for number in range(10):
            with contextlib.suppress(PreconditionFailed):  # sent twice, the first sending heard of too late
                await committer.commit(create(f"slow-{number}"))
        sent = len(store.transactions)
        for number in range(20):
            await committer.commit(create(f"later-{number}"))
        assert len(store.transactions) == sent + 20


@virtually
async def test_many_changes_with_one_wait_are_each_told_apart() -> None:
    memory, store = build_store()
    async with committing(store) as committer:
        await committer.commit(create("taken"))
        huge = put("huge", 0, "x" * (2 << 20))
        results = await committer.commit_all([create("a"), create("taken"), huge, create("b")])
        assert [type(result) for result in results] == [Committed, PreconditionFailed, TooLarge, Committed]
        assert await revisions(memory, "a")
        assert await revisions(memory, "b")
        assert await committer.commit_all([]) == []


@virtually
async def test_many_changes_with_one_wait_end_at_their_deadline() -> None:
    memory, store = build_store()
    store.cut = True
    async with committing(store) as committer:
        began_s = CLOCK.monotonic_s()
        results = await committer.commit_all([create(str(n)) for n in range(600)], timeout_s=2)
        assert CLOCK.monotonic_s() - began_s < 2.1
        assert {type(result) for result in results} <= {CommitUncertain, Unavailable}
        certain = [str(n) for n, result in enumerate(results) if isinstance(result, Unavailable)]
        store.cut = False
        await asyncio.sleep(60)
        assert [name for name in certain if await revisions(memory, name)] == []


@virtually
async def test_who_gives_up_waiting_for_many_changes_leaves_none_behind() -> None:
    memory, store = build_store()
    store.cut = True
    async with committing(store) as committer:
        first = asyncio.create_task(committer.commit_all([create("first")]))
        await asyncio.sleep(0.1)
        blocked = asyncio.create_task(committer.commit_all([create(str(n)) for n in range(2_000)]))
        await asyncio.sleep(0.1)
        for task in (first, blocked):
            task.cancel()
        await asyncio.gather(first, blocked, return_exceptions=True)
        store.cut = False
        sent = len(store.transactions)
        await asyncio.sleep(60)
        assert len(store.transactions) - sent <= 3  # what was under way may be heard of, what waited is not sent
        assert not await revisions(memory, "1999")


@virtually
async def test_a_lone_change_leaves_at_once() -> None:
    _, faulty = build_store()
    async with committing(faulty) as committer:
        began_s = CLOCK.monotonic_s()
        await committer.commit(create("a"))
        assert CLOCK.monotonic_s() - began_s < 0.001


@virtually
async def test_a_batch_never_holds_a_key_twice_and_changes_of_one_key_keep_their_order() -> None:
    memory, faulty = build_store()
    async with committing(faulty, settings=CommitSettings(in_flight_max=1)) as committer:
        results = await together(committer, create("a"), create("b"), put("a", 2, "second"), create("c"))
    assert [type(result) for result in results] == [Committed] * 4
    for txn in faulty.transactions:
        written = [op.key for item in txn.then if isinstance(item, Txn) for op in item.then if isinstance(op, Put)]
        assert len(written) == len(set(written))
    assert await revisions(memory, "a") == [2, 3]


@virtually
async def test_two_changes_that_rely_on_what_the_other_writes_do_not_both_succeed() -> None:
    _, faulty = build_store()
    async with committing(faulty) as committer:
        results = await together(committer, put("a", 0, relies_on=("b", 0)), put("b", 0, relies_on=("a", 0)))
    assert [type(result) for result in results] == [Committed, PreconditionFailed]


@virtually
async def test_a_lost_lease_costs_only_the_change_that_names_it() -> None:
    memory, faulty = build_store()
    lease = await memory.grant(10, timeout_s=1)
    await memory.revoke(lease.id, timeout_s=1)
    async with committing(faulty) as committer:
        doomed = put("doomed", 0, lease_id=lease.id)
        results = await together(committer, *(create(f"n{i}") for i in range(9)), doomed, create("last"))
    assert [type(result) for result in results] == [Committed] * 9 + [LeaseLost, Committed]


@virtually
async def test_everybody_is_told_that_there_is_no_space() -> None:
    class Full(FaultyStore):
        async def txn(self, txn: Txn, *, timeout_s: float):
            raise NoSpace("full")

    full = Full(MemoryStore(CLOCK.monotonic_s))
    async with committing(full) as committer:
        assert {type(r) for r in await together(committer, create("a"), create("b"))} == {NoSpace}


# --- bounds ---


@virtually
async def test_a_batch_stays_within_its_operations_and_bytes() -> None:
    _, faulty = build_store()
    settings = CommitSettings(batch_ops_max=10, batch_bytes_max=2_000)
    async with committing(faulty, settings=settings) as committer:
        await together(committer, *(create(f"n{i}") for i in range(30)))
        assert {len(txn.then) for txn in faulty.transactions} == {5}
        await together(committer, *(create(f"m{i}", "x" * 800) for i in range(4)))
        assert len(faulty.transactions) == 6 + 2
        with pytest.raises(TooLarge):
            await committer.commit(create("huge", "x" * 3_000))
        with pytest.raises(TooLarge):
            await committer.commit(
                Change(
                    puts=tuple(PutRecord(keys.node_spec(f"q{i}"), NodeSpec()) for i in range(10)),
                    preconditions=(Precondition("k", 0),),
                )
            )


@virtually
async def test_a_full_queue_refuses_at_once() -> None:
    _, faulty = build_store(always(REQUEST_LOST))
    settings = CommitSettings(queue_length_max=5, in_flight_max=1)
    async with committing(faulty, settings=settings) as committer:
        under_way = asyncio.create_task(committer.commit(create("first"), timeout_s=3))
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(committer.commit(create(f"n{i}"), timeout_s=3)) for i in range(5)]
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable):
            await committer.commit(create("one-too-many"))
        results = await asyncio.gather(under_way, *waiting, return_exceptions=True)
    assert isinstance(results[0], CommitUncertain)
    assert {type(result) for result in results[1:]} == {Unavailable}, "what was never sent is surely not done"


@pytest.mark.parametrize(
    ("fault", "expected"), [(REQUEST_LOST, CommitUncertain), (ANSWER_LOST, CommitUncertain), (REFUSED, Unavailable)]
)
@virtually
async def test_every_caller_is_answered_at_its_own_deadline(fault: Fault, expected: type[Exception]) -> None:
    _, faulty = build_store(lambda call: fault)
    async with committing(faulty) as committer:

        async def commit(name: str, timeout_s: float) -> None:
            began_s = CLOCK.monotonic_s()
            with pytest.raises(expected):
                await committer.commit(
                    requested(name, id=name)[0], request=requested(name, id=name)[1], timeout_s=timeout_s
                )
            assert CLOCK.monotonic_s() - began_s == pytest.approx(timeout_s, abs=0.06)

        await asyncio.gather(*(commit(f"n{timeout_s}", timeout_s) for timeout_s in (0.1, 1.0, 5.0, 0.3)))


@virtually
async def test_what_was_reported_as_surely_not_done_is_never_done_later() -> None:
    memory, faulty = build_store(always(REFUSED))
    async with committing(faulty) as committer:
        patient = asyncio.create_task(committer.commit(create("patient"), timeout_s=10))
        with pytest.raises(Unavailable):
            await committer.commit(create("hasty"), timeout_s=0.5)
        cancelled = asyncio.create_task(committer.commit(create("cancelled"), timeout_s=5))
        await asyncio.sleep(0.2)
        cancelled.cancel()
        faulty.choose = script()
        assert isinstance(await patient, Committed)
        await asyncio.sleep(5)
    assert not await revisions(memory, "hasty")
    assert not await revisions(memory, "cancelled")


@virtually
async def test_a_commit_without_anybody_who_sends_it_ends_at_its_deadline() -> None:
    _, faulty = build_store()
    with pytest.raises(Unavailable):
        await Committer(faulty, CLOCK).commit(create("a"), timeout_s=1)


# --- stopping ---


@pytest.mark.parametrize("pause_s", [None, 0.0, 0.01, 0.5])
@virtually
async def test_stopping_answers_everybody(pause_s: float | None) -> None:
    _, faulty = build_store(always(ANSWER_LOST))
    committer = Committer(faulty, CLOCK, settings=CommitSettings(in_flight_max=1))
    run = asyncio.create_task(committer.run())
    await asyncio.sleep(0.01)
    waiting = [asyncio.create_task(committer.commit(create("same"), timeout_s=100)) for _ in range(3)]
    if pause_s is not None:
        await asyncio.sleep(pause_s)
    run.cancel()
    async with asyncio.timeout(1):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, (CommitUncertain, Unavailable)) for result in results)
    with pytest.raises(Unavailable):
        await committer.commit(create("later"))


@virtually
async def test_a_bug_in_the_store_is_not_a_reason_to_keep_callers_waiting() -> None:
    class Buggy(FaultyStore):
        async def txn(self, txn: Txn, *, timeout_s: float):
            raise KeyError("bug")

    committer = Committer(Buggy(MemoryStore(CLOCK.monotonic_s)), CLOCK)
    run = asyncio.create_task(committer.run())
    with pytest.raises(CommitUncertain):
        await committer.commit(create("a"), timeout_s=100)
    with pytest.raises(ExceptionGroup):
        await run


# --- the lease of short-lived records ---


@virtually
async def test_a_rolling_lease_keeps_records_long_enough_and_is_renewed_by_the_next() -> None:
    memory, faulty = build_store()
    rolling = RollingLease(faulty, CLOCK, kept_s=600)
    first = await rolling.current()
    await asyncio.sleep(599)
    assert await rolling.current() == first
    await asyncio.sleep(2)
    second = await rolling.current()
    assert second != first
    assert set(await asyncio.gather(*(rolling.current() for _ in range(5)))) == {second}
    assert await memory.keep_alive(first, timeout_s=1), "what was written a moment ago is still kept"
    rolling.forget()
    assert await rolling.current() not in (first, second)
    faulty.choose = always(REQUEST_LOST, ("grant",))
    rolling.forget()
    with pytest.raises(Unavailable):
        await rolling.current()
