"""A coordinator's copy equals the store, whatever happens to its watch, and says so only when it is true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cloudless.coordinator.replica import Replica, ReplicaSettings, WatchReset
from cloudless.core import keys
from cloudless.core.model import NodeSpec
from cloudless.core.state import Applied
from cloudless.errors import Stale, Unavailable
from cloudless.ports import Delete, Put, Txn
from cloudless.rpc.codec import encode_record
from cloudless.testing.faulty_store import REFUSED, Fault, FaultyStore, always, script
from cloudless.testing.memory_store import MemoryStore
from cloudless.testing.virtual_time import VirtualClock, eventually, running, virtually

CLOCK = VirtualClock()


async def put(store: MemoryStore, *names: str, label: str = "") -> int:
    """Write the specs of some nodes in one transaction; return its revision."""
    value = encode_record(NodeSpec(labels={"l": label}))
    puts = tuple(Put(keys.node_spec(name), value) for name in names)
    return (await store.txn(Txn(then=puts), timeout_s=1)).revision


async def write(store: MemoryStore, *ops: Put | Delete) -> int:
    return (await store.txn(Txn(then=ops), timeout_s=1)).revision


@asynccontextmanager
async def following(store: FaultyStore, settings: ReplicaSettings | None = None) -> AsyncIterator[Replica]:
    replica = Replica(store, CLOCK, settings)
    async with running(replica.run()):
        await asyncio.wait_for(replica.loaded.wait(), 30)
        yield replica


def build_store(cluster_id: int = 1) -> tuple[MemoryStore, FaultyStore]:
    memory = MemoryStore(CLOCK.monotonic_s, cluster_id=cluster_id)
    return memory, FaultyStore(memory)


async def digest_of(memory: MemoryStore, revision: int = 0) -> int:
    """Return the digest of a state built from nothing but a read at `revision`."""

    class Frozen(FaultyStore):
        async def read_page(self, prefix: str, *, revision: int = 0, **rest):
            return await memory.read_page(prefix, revision=revision or at, **rest)

    at = revision or await memory.current_revision(timeout_s=1)
    fresh = Replica(Frozen(memory), CLOCK)
    await fresh._load()
    return fresh.machine.digest


async def assert_equal(replica: Replica, memory: MemoryStore) -> None:
    await replica.linearize(timeout_s=10)
    assert replica.machine.digest == await digest_of(memory)


# --- loading and following ---


@virtually
async def test_state_is_loaded_in_pages_of_one_revision_while_writes_go_on() -> None:
    memory, faulty = build_store()
    await put(memory, *(f"n{i:02d}" for i in range(10)))
    replica = Replica(faulty, CLOCK, ReplicaSettings(page_size=3))
    faulty.choose = always(Fault(answer_delay_s=0.1), ("read_page",))
    async with running(replica.run()):
        await asyncio.sleep(0.15)
        await put(memory, "n00", "n99")
        await write(memory, Delete(keys.node_spec("n05")))
        await replica.loaded.wait()
        assert replica.machine.revision == 2
        assert len(replica.machine.nodes) == 10
        await assert_equal(replica, memory)
        assert "n05" not in replica.machine.nodes
    assert faulty.calls.count("read_page") == 4


@virtually
async def test_the_digest_at_each_revision_is_that_of_a_fresh_read_there() -> None:
    memory, faulty = build_store()
    async with following(faulty) as replica:
        last = 0
        for step in range(40):
            if step % 5 == 3:
                last = await write(memory, Delete(keys.node_spec(f"n{step % 4}")), Put("/elsewhere", b""))
            else:
                last = await put(memory, f"n{step % 4}", f"m{step % 7}", label=str(step))
            if step % 10 == 9:
                faulty.break_watches()
            if step % 3 == 0:
                await asyncio.sleep(0.05)
        await replica.wait_for(last, timeout_s=10)
        for revision in range(2, last + 1):
            assert replica.find_digest(revision) == await digest_of(memory, revision), revision
        assert replica.find_digest(last + 1) is None
        assert replica.find_digest(0) is None


@virtually
async def test_listeners_are_told_every_change_once_in_order() -> None:
    memory, faulty = build_store()
    async with following(faulty) as replica:
        told: list[Applied] = []
        stop = replica.listen(told.append)
        revisions = [await put(memory, "a", "b"), await put(memory, "a")]
        await replica.wait_for(revisions[-1], timeout_s=1)
        faulty.break_watches()
        revisions.append(await put(memory, "c"))
        await replica.wait_for(revisions[-1], timeout_s=5)
        changes = [(applied.revision, len(applied.transitions)) for applied in told if applied.transitions]
        assert changes == list(zip(revisions, (2, 1, 1), strict=True))
        stop()
        await replica.wait_for(await put(memory, "d"), timeout_s=5)
        assert not any(applied.revision > revisions[-1] and applied.transitions for applied in told)


@virtually
async def test_unreadable_values_and_unknown_keys_are_set_aside_and_the_rest_goes_on() -> None:
    memory, faulty = build_store()
    broken, unknown = keys.node_spec("broken"), keys.PREFIX + "something/new"
    await write(memory, Put(broken, b"\xff\xff garbage"), Put(unknown, b"?"))
    async with following(faulty) as replica:
        await write(memory, Put(keys.workload("default", "web"), b"\x00"), Put(keys.task_desired("t"), b"\xff"))
        await put(memory, "good")
        await assert_equal(replica, memory)
        assert set(replica.machine.quarantined) == {
            broken, unknown, keys.workload("default", "web"), keys.task_desired("t"),
        }  # fmt: skip
        assert set(replica.machine.nodes) == {"good"}
        await put(memory, "broken")
        await write(memory, Delete(unknown))
        await assert_equal(replica, memory)
        assert set(replica.machine.nodes) == {"broken", "good"}
        assert len(replica.machine.quarantined) == 2


@virtually
async def test_loading_goes_on_until_the_store_answers() -> None:
    memory, faulty = build_store()
    await put(memory, "a")
    faulty.choose = script(*[REFUSED] * 20, only="read_page")
    async with following(faulty) as replica:
        assert set(replica.machine.nodes) == {"a"}


# --- losing the thread ---


@virtually
async def test_compacted_history_leads_to_a_fresh_read_with_deletions() -> None:
    memory, faulty = build_store()
    await put(memory, "kept", "changed", "deleted")
    async with following(faulty) as replica:
        told: list[Applied] = []
        replica.listen(told.append)
        faulty.cut = True
        await put(memory, "changed", "new")
        await memory.compact(await write(memory, Delete(keys.node_spec("deleted"))), timeout_s=1)
        await put(memory, "newest")
        faulty.break_watches()
        faulty.cut = False
        await eventually(lambda: replica.resets_total == 2)
        assert replica.watch_resets[WatchReset.COMPACTED] == 1
        await assert_equal(replica, memory)
        changed = {t.key: t.after is None for applied in told for t in applied.transitions}
        assert changed == {
            keys.node_spec("changed"): False,
            keys.node_spec("new"): False,
            keys.node_spec("newest"): False,
            keys.node_spec("deleted"): True,
        }


@virtually
async def test_a_deletion_that_etcd_forgets_with_the_compaction_at_its_revision_is_not_missed() -> None:
    memory = MemoryStore(CLOCK.monotonic_s, loses_last_deletions=True)
    store = FaultyStore(memory)
    await put(memory, "a", "b")
    async with following(store) as replica:
        store.break_watches()  # and before it is opened anew:
        await write(memory, Delete(keys.node_spec("a")))
        await memory.compact(await memory.current_revision(timeout_s=1), timeout_s=1)
        await put(memory, "b")
        await eventually(lambda: replica.machine.revision == 4)
        await assert_equal(replica, memory)


@pytest.mark.parametrize("ahead", [True, False], ids=["revision went back", "other cluster, revision ahead"])
@pytest.mark.parametrize("breaks", [True, False], ids=["watch breaks", "watch hangs"])
@virtually
async def test_a_restored_store_discards_everything_held(ahead: bool, breaks: bool) -> None:
    memory, faulty = build_store()
    for _ in range(20):
        await put(memory, "old")
    restored = MemoryStore(CLOCK.monotonic_s, cluster_id=2)
    for _ in range(1 if ahead else 100):
        await put(restored, "from-backup")
    async with following(faulty) as replica:
        faulty.inner = restored
        faulty.choose = script(*[REFUSED] * 3, only="read_page")
        (faulty.break_watches if breaks else faulty.hang_watches)()
        if ahead:
            with pytest.raises((Stale, Unavailable)):
                await replica.linearize(timeout_s=0.05)
            assert "old" in replica.machine.nodes, "still the old state: what claims to be fresh would be wrong"
        await eventually(lambda: set(replica.machine.nodes) == {"from-backup"})
        await assert_equal(replica, restored)
        assert replica.find_history(2) is None
        assert replica.watch_resets[WatchReset.RESTORED] == 1
        await put(restored, "later")
        await assert_equal(replica, restored)


@virtually
async def test_a_watch_that_hangs_in_silence_is_found_and_opened_anew() -> None:
    memory, faulty = build_store()
    async with following(faulty) as replica:
        await asyncio.sleep(5)
        assert replica.staleness_s < 1.5
        faulty.hang_watches()
        await put(memory, "a")
        took_s = await eventually(lambda: "a" in replica.machine.nodes)
        assert took_s < 6
        assert replica.resets_total == 1, "it resumes where it was"
        assert replica.watch_resets == {WatchReset.HUNG: 1}


@virtually
async def test_a_copy_cut_off_from_its_store_grows_stale_and_recovers() -> None:
    memory, faulty = build_store()
    async with following(faulty) as replica:
        faulty.cut = True
        await put(memory, "a")
        await asyncio.sleep(10)
        assert replica.staleness_s > 9
        with pytest.raises(Unavailable):
            await replica.linearize(timeout_s=1)
        faulty.cut = False
        assert await eventually(lambda: replica.staleness_s < 1.5) < 6
        assert "a" in replica.machine.nodes


# --- waiting for a revision ---


@virtually
async def test_a_linearizable_read_sees_every_write_acknowledged_before_it() -> None:
    memory, faulty = build_store()
    faulty.choose = always(Fault(request_delay_s=0.02, answer_delay_s=0.02), ("current_revision",))
    async with following(faulty) as replica:
        for index in range(20):
            revision = await put(memory, f"n{index}") if index % 2 else await write(memory, Put("/elsewhere", b""))
            began_s = CLOCK.monotonic_s()
            assert await replica.linearize(timeout_s=5) >= revision
            assert replica.machine.revision >= revision
            assert replica.fresh_at_s >= began_s


@virtually
async def test_linearizable_reads_that_wait_together_share_a_request_sent_after_all_of_them() -> None:
    memory, faulty = build_store()
    async with following(faulty, ReplicaSettings(check_period_s=1e6)) as replica:
        await asyncio.sleep(1)
        faulty.calls.clear()
        faulty.choose = always(Fault(answer_delay_s=0.1), ("current_revision",))
        early = asyncio.create_task(replica.linearize(timeout_s=5))
        await asyncio.sleep(0.05)
        revision = await put(memory, "a")
        late = [asyncio.create_task(replica.linearize(timeout_s=5)) for _ in range(50)]
        assert await early < revision
        assert {await task for task in late} == {revision}
        assert faulty.calls.count("current_revision") == 2


@virtually
async def test_one_failed_read_does_not_fail_those_who_can_wait() -> None:
    memory, faulty = build_store()
    async with following(faulty) as replica:
        faulty.choose = script(REFUSED, Fault(request_lost=True), REFUSED, only="current_revision")
        revision = await put(memory, "a")
        assert await replica.linearize(timeout_s=5) == revision


@virtually
async def test_waiting_for_a_revision_ends_when_it_is_there_or_time_is_up() -> None:
    memory, faulty = build_store()
    async with following(faulty) as replica:
        await replica.wait_for(1, timeout_s=0)
        began_s = CLOCK.monotonic_s()
        with pytest.raises(Stale):
            await replica.wait_for(1_000, timeout_s=2)
        assert CLOCK.monotonic_s() - began_s == pytest.approx(2, abs=0.01)
        waiting = asyncio.create_task(replica.wait_for(3, timeout_s=5))
        await put(memory, "a")
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await put(memory, "a")
        await waiting
        assert not replica._waiters


@virtually
async def test_a_revision_outside_our_keys_is_waited_for_by_asking_even_while_the_watch_is_opened_anew() -> None:
    memory, faulty = build_store()
    async with following(faulty) as replica:
        faulty.break_watches()
        began_s = CLOCK.monotonic_s()
        await replica.wait_for(await write(memory, Put("/elsewhere", b"")), timeout_s=5)
        assert CLOCK.monotonic_s() - began_s < 1


# --- history ---


@virtually
async def test_history_is_kept_for_those_who_resume_within_its_window() -> None:
    memory, faulty = build_store()
    await put(memory, "before")
    async with following(faulty, ReplicaSettings(history_length_max=10)) as replica:
        assert replica.find_history(2) is None, "what was loaded has no history"
        assert replica.find_history(3) == []
        revisions = [await put(memory, "a", "b") for _ in range(3)]
        await replica.wait_for(revisions[-1], timeout_s=5)
        kept = replica.find_history(revisions[1])
        assert kept is not None
        assert [applied.revision for applied in kept] == revisions[1:]
        revisions += [await put(memory, "a", "b") for _ in range(3)]
        await replica.wait_for(revisions[-1], timeout_s=5)
        assert replica.find_history(revisions[0]) is None
        kept = replica.find_history(revisions[1])
        assert kept is not None
        assert [applied.revision for applied in kept] == revisions[1:]
        assert sum(len(applied.transitions) for applied in replica._history) <= 10
