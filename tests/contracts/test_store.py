"""One suite for the `Store` port, on the store in memory and on etcd: what the rest of cloudless relies on."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from cloudless.errors import CloudlessError, Compacted, InvariantBroken, LeaseLost, TooLarge, Unavailable
from cloudless.ports import (
    Compare,
    Delete,
    Done,
    Get,
    Got,
    Put,
    Relation,
    Target,
    Txn,
    TxnResult,
    WatchBatch,
)
from tests.contracts.stores import Held, collect, held, member
from tests.integration.etcd_fixture import until

__all__ = ["held", "member"]

TIMEOUT_S = 5.0


async def run(held: Held, *then: Put | Delete | Get | Txn, compares: tuple[Compare, ...] = ()) -> TxnResult:
    return await held.store.txn(Txn(compares=compares, then=then), timeout_s=TIMEOUT_S)


async def put(held: Held, name: str, value: bytes = b"v") -> int:
    return (await run(held, Put(held.key(name), value))).revision


async def get(held: Held, name: str):
    result = (await run(held, Get(held.key(name)))).results[0]
    assert isinstance(result, Got)
    return result.kv


async def names(held: Held, revision: int = 0) -> list[str]:
    page = await held.store.read_page(held.prefix, revision=revision)
    return [kv.key.removeprefix(held.prefix) for kv in page.kvs]


# --- revisions ---


async def test_a_transaction_with_several_writes_takes_one_revision(held: Held) -> None:
    before = await held.store.current_revision(timeout_s=TIMEOUT_S)
    result = await run(held, Put(held.key("a"), b"1"), Put(held.key("b"), b"2"))
    assert result == TxnResult(True, before + 1, (Done(), Done()))
    assert {(await get(held, name)).mod_revision for name in "ab"} == {before + 1}


async def test_what_writes_nothing_takes_no_revision(held: Held) -> None:
    before = await put(held, "a")
    for op in (Get(held.key("a")), Delete(held.key("missing"))):
        assert (await run(held, op)).revision == before
    assert await held.store.current_revision(timeout_s=TIMEOUT_S) == before


async def test_create_revision_lasts_for_a_keys_life_and_mod_revision_for_a_write(held: Held) -> None:
    first = await put(held, "a", b"1")
    second = await put(held, "a", b"2")
    kv = await get(held, "a")
    assert (kv.create_revision, kv.mod_revision, kv.value) == (first, second, b"2")
    assert (await run(held, Delete(held.key("a")))).results == (Done(1),)
    assert await get(held, "a") is None
    third = await put(held, "a", b"3")
    kv = await get(held, "a")
    assert (kv.create_revision, kv.mod_revision) == (third, third)


async def test_reading_after_a_write_inside_a_transaction_sees_it(held: Held) -> None:
    result = await run(held, Put(held.key("a"), b"1"), Get(held.key("a")))
    seen = result.results[1]
    assert isinstance(seen, Got)
    assert seen.kv is not None
    assert (seen.kv.value, seen.kv.mod_revision) == (b"1", result.revision)


# --- compares ---


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize(
    ("relation", "holds"),
    [
        (Relation.EQUAL, (False, True, False)),
        (Relation.NOT_EQUAL, (True, False, True)),
        (Relation.GREATER, (True, False, False)),
        (Relation.LESS, (False, False, True)),
    ],
)
async def test_compares_look_at_the_revision_of_a_key(
    held: Held, target: Target, relation: Relation, holds: tuple[bool, bool, bool]
) -> None:
    actual = await put(held, "a")
    for offset, expected in zip((-1, 0, 1), holds, strict=True):
        compare = Compare(held.key("a"), target, relation, actual + offset)
        assert (await run(held, compares=(compare,))).succeeded is expected


@pytest.mark.parametrize("target", Target)
async def test_a_missing_key_has_revision_zero(held: Held, target: Target) -> None:
    for relation, expected in ((Relation.EQUAL, True), (Relation.GREATER, False), (Relation.NOT_EQUAL, False)):
        compare = Compare(held.key("missing"), target, relation, 0)
        assert (await run(held, compares=(compare,))).succeeded is expected


async def test_one_compare_that_does_not_hold_sends_the_whole_to_orelse(held: Held) -> None:
    a = held.key("a")
    revision = await put(held, "a", b"old")
    right, wrong = (Compare(a, Target.MOD, Relation.EQUAL, revision + n) for n in (0, 1))
    txn = Txn((right, wrong), (Put(a, b"then"),), (Put(held.key("b"), b"else"), Get(a)))
    result = await held.store.txn(txn, timeout_s=TIMEOUT_S)
    assert not result.succeeded
    assert result.revision == revision + 1
    assert isinstance(result.results[1], Got)
    assert await names(held) == ["a", "b"]
    assert (await get(held, "a")).value == b"old"


# --- nested transactions ---


def absent(key: str) -> Compare:
    return Compare(key, Target.CREATE, Relation.EQUAL, 0)


async def test_nested_transactions_succeed_and_fail_independently_under_one_revision(held: Held) -> None:
    revision = await put(held, "taken")
    nested = [
        Txn((absent(held.key(name)),), (Put(held.key(name), b"new"),), (Get(held.key(name)),))
        for name in ("a", "taken", "b")
    ]
    result = await run(held, *nested)
    assert result.succeeded
    inner = [item for item in result.results if isinstance(item, TxnResult)]
    assert [item.succeeded for item in inner] == [True, False, True]
    assert {item.revision for item in (result, *inner)} == {revision + 1}
    assert inner[0].results == (Done(),)
    refused = inner[1].results[0]
    assert isinstance(refused, Got)
    assert refused.kv is not None
    assert refused.kv.mod_revision == revision
    assert await names(held) == ["a", "b", "taken"]


async def test_compares_of_nested_transactions_see_the_state_before_the_whole(held: Held) -> None:
    a, b = held.key("a"), held.key("b")
    result = await run(held, Put(a, b"1"), Txn((absent(a),), (Put(b, b"2"),), (Get(a),)), Txn((absent(b),), (Get(a),)))
    inner = [item for item in result.results if isinstance(item, TxnResult)]
    assert [item.succeeded for item in inner] == [True, True]
    seen = inner[1].results[0]
    assert isinstance(seen, Got)
    assert seen.kv is not None, "reads, other than compares, see the writes before them"


async def test_an_outer_compare_that_fails_does_nothing_of_what_is_nested(held: Held) -> None:
    nested = Txn((), (Put(held.key("b"), b"1"),))
    result = await run(held, nested, compares=(Compare(held.key("a"), Target.CREATE, Relation.GREATER, 0),))
    assert not result.succeeded
    assert result.results == ()
    assert await names(held) == []


def _puts(*keys: str) -> tuple[Put, ...]:
    return tuple(Put(key, b"x") for key in keys)


async def test_a_key_is_put_once_in_a_transaction(held: Held) -> None:
    k = held.key("k")
    refused: dict[str, tuple[Put | Delete | Get | Txn, ...]] = {
        "twice in a row": _puts(k, k),
        "put and deleted": (Put(k, b""), Delete(k)),
        "in two siblings": (Txn(then=_puts(k)), Txn(then=_puts(k))),
        "in branches of two siblings": (Txn(then=_puts(k)), Txn(orelse=_puts(k))),
        "outside and inside": (*_puts(k), Txn(then=_puts(k))),
        "deleted outside, put inside": (Delete(k), Txn(then=_puts(k))),
        "deleted inside, put outside": (Txn(then=(Delete(k),)), *_puts(k)),
        "deleted in a sibling before": (Txn(then=(Delete(k),)), Txn(then=_puts(k))),
        "two levels down": (*_puts(k), Txn(then=(Txn(then=_puts(k)),))),
    }
    for case, ops in refused.items():
        with pytest.raises(InvariantBroken):
            pytest.fail(f"{case}: {await run(held, *ops)}")
    assert await names(held) == []


async def test_a_key_may_be_deleted_twice_and_stand_in_both_branches_of_one_nested_transaction(held: Held) -> None:
    k = held.key("k")
    await put(held, "k")
    assert (await run(held, Delete(k), Delete(k))).results == (Done(1), Done(0))
    await run(held, Txn(then=_puts(k), orelse=_puts(k)))
    await run(held, Txn((absent(k),), then=_puts(k), orelse=(Delete(k),)))
    assert await names(held) == []


# --- pages ---


async def test_pages_show_one_revision_while_writes_go_on(held: Held) -> None:
    for index in range(5):
        await put(held, f"k{index}")
    first = await held.store.read_page(held.prefix, limit=2)
    await run(held, Delete(held.key("k3")), Put(held.key("k2"), b"later"), Put(held.key("k9"), b""))
    pages = [first]
    while pages[-1].more:
        last = pages[-1].kvs[-1].key
        pages.append(await held.store.read_page(held.prefix, start_after=last, revision=first.revision, limit=2))
    assert [len(page.kvs) for page in pages] == [2, 2, 1]
    assert {page.revision for page in pages} == {first.revision}
    assert len({page.cluster_id for page in pages}) == 1
    assert {kv.key.removeprefix(held.prefix): kv.value for page in pages for kv in page.kvs} == {
        f"k{index}": b"v" for index in range(5)
    }


async def test_keys_come_in_order_and_only_those_with_the_prefix(held: Held) -> None:
    before = held.prefix[:-1] + "."
    await run(held, Put(before, b""), Put(held.prefix[:-1] + "0", b""), *_puts(*map(held.key, ("b", "a/z", "a", "B"))))
    assert await names(held) == ["B", "a", "a/z", "b"]
    page = await held.store.read_page(held.prefix, limit=4)
    assert not page.more, "a page that holds exactly the last key is the last"


async def test_old_revisions_are_read_until_they_are_compacted(held: Held) -> None:
    first = await put(held, "a")
    second = (await run(held, Delete(held.key("a")), Put(held.key("b"), b""))).revision
    third = await put(held, "c")
    assert await names(held, first) == ["a"]
    await held.store.compact(second, timeout_s=TIMEOUT_S)
    await held.store.compact(second, timeout_s=TIMEOUT_S)
    with pytest.raises(Compacted):
        await names(held, first)
    assert await names(held, second) == ["b"]
    assert await names(held, third) == ["b", "c"]


async def test_a_revision_that_is_yet_to_come_cannot_be_read(held: Held) -> None:
    with pytest.raises(Unavailable):
        await names(held, await held.store.current_revision(timeout_s=TIMEOUT_S) + 100)


# --- watches ---


def seen(held: Held, batches: list[WatchBatch]) -> list[tuple[str, int, bool]]:
    return [
        (event.kv.key.removeprefix(held.prefix), event.kv.mod_revision, event.deleted)
        for batch in batches
        for event in batch.events
    ]


async def test_a_watch_delivers_whole_revisions_from_the_past_and_the_present_in_order(held: Held) -> None:
    await put(held, "too-early")
    first = (await run(held, *_puts(held.key("a"), held.key("b")))).revision
    second = (await run(held, Delete(held.key("a")), *_puts(held.key("c")))).revision
    watch = held.store.watch(held.prefix, start_revision=first)
    collecting = asyncio.create_task(collect(watch, lambda got: got[-1].revision > second))
    await run(held, *_puts(held.prefix[:-1] + "-elsewhere"))
    last = await put(held, "d")
    batches = await collecting
    assert sorted(seen(held, batches)) == sorted(
        [("a", first, False), ("b", first, False), ("a", second, True), ("c", second, False), ("d", last, False)]
    )
    revisions = [revision for _, revision, _ in seen(held, batches)]
    assert revisions == sorted(revisions)
    for earlier, later in itertools.pairwise(batches):
        assert all(event.kv.mod_revision > earlier.revision for event in later.events), "a revision is never split"


async def test_a_deletion_tells_its_key_and_revision_only(held: Held) -> None:
    start = await put(held, "a", b"content")
    revision = (await run(held, Delete(held.key("a")))).revision
    batches = await collect(
        held.store.watch(held.prefix, start_revision=start + 1), lambda got: any(batch.events for batch in got)
    )
    (event,) = [event for batch in batches for event in batch.events]
    assert (event.deleted, event.kv.value, event.kv.mod_revision) == (True, b"", revision)


async def test_a_large_backlog_arrives_whole(held: Held) -> None:
    start = await held.store.current_revision(timeout_s=TIMEOUT_S) + 1
    for round_number in range(5):
        await run(held, *(Put(held.key(f"{round_number}-{index:02d}"), bytes(20_000)) for index in range(40)))
    last = await held.store.current_revision(timeout_s=TIMEOUT_S)
    batches = await collect(held.store.watch(held.prefix, start_revision=start), lambda got: got[-1].revision >= last)
    events = [event for batch in batches for event in batch.events]
    assert len(events) == 200
    assert sum(len(event.kv.value) for event in events) == 4_000_000
    for batch in batches:
        assert batch.revision == max((event.kv.mod_revision for event in batch.events), default=batch.revision)
    by_batch = [{event.kv.mod_revision for event in batch.events} for batch in batches]
    assert sum(map(len, by_batch)) == len(set.union(*by_batch)) == 5, "no revision is spread over two batches"


async def test_a_watch_on_compacted_history_says_so(held: Held) -> None:
    first = await put(held, "a")
    await put(held, "a")
    last = await put(held, "a")
    await held.store.compact(last, timeout_s=TIMEOUT_S)
    with pytest.raises(Compacted) as refusal:
        await collect(held.store.watch(held.prefix, start_revision=first), lambda got: True)
    assert refusal.value.compact_revision == last


async def test_a_progress_mark_can_be_asked_for(held: Held) -> None:
    start = await put(held, "a")
    watch = held.store.watch(held.prefix, start_revision=start)
    collecting = asyncio.create_task(collect(watch, lambda got: got[-1].revision > start and not got[-1].events))
    await run(held, *_puts(held.prefix[:-1] + "-elsewhere"))
    while not collecting.done():
        await watch.request_progress()
        await asyncio.sleep(0.02)
    assert seen(held, await collecting) == [("a", start, False)]


async def test_watches_are_independent(held: Held) -> None:
    start = await put(held, "a")
    one, two = (held.store.watch(held.prefix, start_revision=start) for _ in range(2))
    first = await collect(one, lambda got: len(seen(held, got)) == 1)
    collecting = asyncio.create_task(collect(two, lambda got: len(seen(held, got)) == 2))
    second = await put(held, "b")
    assert seen(held, first) == [("a", start, False)]
    assert seen(held, await collecting) == [("a", start, False), ("b", second, False)]


async def test_closing_a_watch_ends_whoever_iterates_it_without_harm(held: Held) -> None:
    watch = held.store.watch(held.prefix, start_revision=await put(held, "a"))
    begun = asyncio.Event()

    async def follow() -> str:
        async for _ in watch:
            begun.set()
        return "ended"

    following = asyncio.create_task(follow())
    await asyncio.wait_for(begun.wait(), TIMEOUT_S)
    await watch.close()
    assert await asyncio.wait_for(following, TIMEOUT_S) == "ended"


async def test_whoever_iterates_a_watch_can_be_cancelled(held: Held) -> None:
    watch = held.store.watch(held.prefix, start_revision=await put(held, "a") + 1)
    following = asyncio.create_task(collect(watch, lambda got: bool(got[-1].events)))
    await asyncio.sleep(0.01)
    following.cancel()
    assert (await asyncio.gather(following, return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def test_a_watch_never_starts_at_no_revision(held: Held) -> None:
    with pytest.raises(ValueError, match="revision > 0"):
        held.store.watch(held.prefix, start_revision=0)


# --- leases ---


async def test_revoking_a_lease_deletes_its_keys_in_one_revision(held: Held) -> None:
    lease = await held.store.grant(60, timeout_s=TIMEOUT_S)
    assert lease.ttl_s >= 60
    await run(held, *(Put(held.key(name), b"", lease.id) for name in "ab"), Put(held.key("kept"), b""))
    assert (await get(held, "a")).lease_id == lease.id
    start = await held.store.current_revision(timeout_s=TIMEOUT_S) + 1
    await held.store.revoke(lease.id, timeout_s=TIMEOUT_S)
    await held.store.revoke(lease.id, timeout_s=TIMEOUT_S)
    batches = await collect(held.store.watch(held.prefix, start_revision=start), lambda got: bool(got[-1].events))
    assert sorted(seen(held, batches)) == [("a", start, True), ("b", start, True)]
    assert await names(held) == ["kept"]


async def test_a_key_belongs_to_the_lease_of_its_last_write(held: Held) -> None:
    old, new = [await held.store.grant(60, timeout_s=TIMEOUT_S) for _ in range(2)]
    for lease_id in (old.id, new.id):
        await run(held, Put(held.key("a"), b"", lease_id))
    await held.store.revoke(old.id, timeout_s=TIMEOUT_S)
    assert await names(held) == ["a"]
    await run(held, Put(held.key("a"), b""))
    await held.store.revoke(new.id, timeout_s=TIMEOUT_S)
    assert await names(held) == ["a"]


async def test_a_lease_that_is_not_renewed_runs_out_with_its_keys(held: Held) -> None:
    lease = await held.store.grant(1, timeout_s=TIMEOUT_S)
    await run(held, Put(held.key("a"), b"", lease.id))
    assert await held.store.keep_alive(lease.id, timeout_s=TIMEOUT_S) == lease.ttl_s
    await held.pass_time(lease.ttl_s + 1)

    async def gone() -> bool:
        return await names(held) == []

    await until(gone, 15)
    with pytest.raises(LeaseLost):
        await held.store.keep_alive(lease.id, timeout_s=TIMEOUT_S)


async def test_a_put_under_a_lost_lease_fails_with_all_that_stands_beside_it(held: Held) -> None:
    lease = await held.store.grant(60, timeout_s=TIMEOUT_S)
    lost = await held.store.grant(60, timeout_s=TIMEOUT_S)
    await run(held, Put(held.key("a"), b"before", lease.id))
    await held.store.revoke(lost.id, timeout_s=TIMEOUT_S)
    before = await held.store.current_revision(timeout_s=TIMEOUT_S)
    for doomed in (Put(held.key("b"), b"", lost.id), Txn(then=(Put(held.key("b"), b"", lost.id),))):
        with pytest.raises(LeaseLost):
            await run(held, Put(held.key("a"), b"after"), doomed)
    assert await held.store.current_revision(timeout_s=TIMEOUT_S) == before
    not_taken = Txn((absent(held.key("a")),), (Put(held.key("b"), b"", lost.id),))
    assert (await run(held, not_taken)).succeeded, "the branch not taken does not matter"
    await held.store.revoke(lease.id, timeout_s=TIMEOUT_S)
    assert await names(held) == [], "the refused write has not taken the key from its lease"


# --- limits ---


async def test_what_is_too_large_is_refused_and_nothing_is_done(held: Held) -> None:
    with pytest.raises(TooLarge):
        await run(held, *(Put(held.key(f"{index}"), bytes(400_000)) for index in range(4)))
    with pytest.raises(TooLarge):
        await run(held, Put(held.key("huge"), bytes(5_000_000)))
    with pytest.raises(TooLarge):
        await run(held, *_puts(*(held.key(f"{index}") for index in range(2_100))))
    many = tuple(Txn(then=_puts(held.key(f"{index}"))) for index in range(1_500))
    assert (await run(held, *many)).succeeded, "nested transactions count once each"
    assert len(await names(held)) == 1_500


async def test_history_cannot_be_compacted_ahead(held: Held) -> None:
    with pytest.raises(CloudlessError):
        await held.store.compact(await held.store.current_revision(timeout_s=TIMEOUT_S) + 100, timeout_s=TIMEOUT_S)
