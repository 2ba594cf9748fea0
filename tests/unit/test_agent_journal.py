"""The agent's journal: what is read back equals what was written, and damage costs one entry at most."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cloudless.agent.assignments import Cursor, Gate, Refused
from cloudless.agent.config import AgentLimits
from cloudless.agent.datadir import lock_data_dir
from cloudless.agent.journal import Head, Journal
from cloudless.agent.ports import is_free, resolve_ports
from cloudless.agent.reports import Outbox, ReportBook
from cloudless.core.autonomy import LastWord
from cloudless.core.discovery.learned import Known
from cloudless.core.localtask import LocalTask
from cloudless.core.model import Port, TaskDesired, TaskObserved, TaskSpec, TaskState
from cloudless.errors import DataDirLocked, PortTaken
from cloudless.rpc.v1.agent_pb2 import Assignments, JournalHead

COMPLETE, INCREMENTAL = Assignments.COMPLETE, Assignments.INCREMENTAL


def build_local(task_id: str = "t1") -> LocalTask:
    desired = TaskDesired(
        id=task_id, namespace="default", workload="web", workload_uid="u", task_generation=3, slot=2, node_id="n1",
        spec=TaskSpec(command=("x", "y"), env={"A": "b"}, ports=(Port(name="http"),)), term=5, reason="new",
    )  # fmt: skip
    return LocalTask(
        desired=desired, state=TaskState.BACKOFF, attempt=4, retries=2, sequence=99, listed=False, ports={"http": 4711},
        backoff_until_s=12.5, pid=7, exit_code=3, signal=9, message="crashed", started_at_ms=11, finished_at_ms=12,
        ready=False, ready_since_ms=13, probe_failures=2, ailing="not live", unready="not ready",
    )  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, threads_max=1)
    yield journal
    journal.close()


async def test_every_field_comes_back(journal: Journal) -> None:
    task = build_local()
    default = LocalTask(desired=task.desired)
    unset = [f.name for f in fields(LocalTask) if getattr(task, f.name) == getattr(default, f.name)]
    assert unset == ["desired", "note", "begun_s"], "the last two are found out anew"
    head = Head(
        cluster_id="c", term_seen=1, revision_seen=2, incarnation=3, coordinators=(Known("c1", "a:1", 7),),
        agent_id="a", last_word=LastWord(4.5, "boot"),
    )  # fmt: skip
    await journal.save(task)
    await journal.save_head(head)
    assert await journal.load() == (head, (task,))
    await journal.delete("t1")
    await journal.delete("t1")
    assert await journal.load() == (head, ())


async def test_the_head_of_an_earlier_version_keeps_its_learned_addresses(journal: Journal, tmp_path: Path) -> None:
    payload = JournalHead(format=1, cluster_id="c", coordinator_addresses=["a:1", "b:2"]).SerializeToString()
    (tmp_path / "head").write_bytes(b"CLJ1" + zlib.crc32(payload).to_bytes(4, "big") + payload)
    head, _ = await journal.load()
    assert [(one.id, one.address) for one in head.coordinators] == [("a:1", "a:1"), ("b:2", "b:2")]
    assert all(one.confirmed_ms > 0 for one in head.coordinators)


async def test_an_entry_cut_anywhere_is_set_aside_and_the_others_are_read(journal: Journal, tmp_path: Path) -> None:
    await journal.save(build_local("t1"))
    await journal.save(build_local("t2"))
    path = tmp_path / "journal" / "t1"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert await journal.load() == (Head(), (build_local("t2"),))
        assert (tmp_path / "quarantine" / "t1").read_bytes() == whole[:length]
        assert not path.exists()


async def test_the_rest_of_a_write_that_was_cut_off_is_cleared_away(journal: Journal, tmp_path: Path) -> None:
    await journal.save(build_local())
    leftover = tmp_path / "journal" / ".t1.tmp"
    leftover.write_bytes(b"half")
    assert await journal.load() == (Head(), (build_local(),))
    assert not leftover.exists()


async def test_an_entry_under_another_tasks_name_is_set_aside(journal: Journal, tmp_path: Path) -> None:
    await journal.save(build_local("t1"))
    (tmp_path / "journal" / "t1").rename(tmp_path / "journal" / "t9")
    assert (await journal.load())[1] == ()


async def test_a_damaged_head_costs_what_was_seen_not_the_tasks(journal: Journal, tmp_path: Path) -> None:
    await journal.save(build_local())
    (tmp_path / "head").write_bytes(b"garbage")
    assert await journal.load() == (Head(), (build_local(),))


def build_gate(journal: Journal) -> Gate:
    return Gate(Head(cluster_id="c1", term_seen=5, revision_seen=50), journal, "n1")


@pytest.mark.parametrize(
    ("kind", "sequence", "term", "revision", "refused"),
    [
        (COMPLETE, 1, 5, 50, ""),
        (COMPLETE, 7, 6, 51, ""),
        (INCREMENTAL, 4, 5, 50, ""),
        (INCREMENTAL, 5, 5, 51, "sequence-gap"),
        (INCREMENTAL, 3, 5, 51, "sequence-gap"),
        (COMPLETE, 1, 4, 60, "stale-term"),
        (COMPLETE, 1, 5, 49, "stale-revision"),
        (INCREMENTAL, 4, 5, 49, "stale-revision"),
        (Assignments.KIND_UNSPECIFIED, 4, 5, 50, "unknown-kind"),
    ],
)
def test_the_gate_lets_nothing_older_or_out_of_order_through(
    journal: Journal, kind: Assignments.Kind.ValueType, sequence: int, term: int, revision: int, refused: str
) -> None:
    message = Assignments(kind=kind, sequence=sequence, term=term, revision=revision)
    cursor = Cursor(next_sequence=4)
    if not refused:
        build_gate(journal).check(message, cursor)
        assert cursor.next_sequence == sequence + 1
        return
    with pytest.raises(Refused) as caught:
        build_gate(journal).check(message, cursor)
    assert caught.value.kind == refused


def test_a_change_before_any_complete_list_is_refused(journal: Journal) -> None:
    with pytest.raises(Refused):
        build_gate(journal).check(Assignments(kind=INCREMENTAL, sequence=0, term=5, revision=50), Cursor())


def test_an_agent_of_no_cluster_joins_any_and_of_one_no_other(journal: Journal) -> None:
    Gate(Head(), journal, "n1").check_cluster("c9")
    build_gate(journal).check_cluster("c1")
    with pytest.raises(Refused):
        build_gate(journal).check_cluster("c9")


def build_report(sequence: int, task_id: str = "t1") -> TaskObserved:
    return TaskObserved(task_id=task_id, node_id="n1", sequence=sequence, state=TaskState.RUNNING)


def test_only_the_newest_report_is_sent_and_again_only_unacknowledged_and_after_a_while() -> None:
    book = ReportBook()
    outbox = Outbox(book, resend_s=2.0)
    for sequence in range(1, 201):
        book.put(build_report(sequence))
    assert outbox.take_due(0.0, 10) == [build_report(200)]
    assert outbox.take_due(1.9, 10) == []
    assert outbox.take_due(2.0, 10) == [build_report(200)]
    assert outbox.resent == 1
    book.acknowledge("t1", 199)
    assert outbox.take_due(9.0, 10) != []
    book.acknowledge("t1", 200)
    assert outbox.take_due(99.0, 10) == []
    assert outbox.take_all(99.0) == [build_report(200)]


def test_a_message_holds_a_bounded_number_of_reports_and_none_is_left_out() -> None:
    book = ReportBook()
    outbox = Outbox(book, resend_s=2.0)
    for number in range(25):
        book.put(build_report(1, f"t{number}"))
    sizes = [len(outbox.take_due(0.0, 10)) for _ in range(4)]
    assert sizes == [10, 10, 5, 0]


def test_ports_are_kept_chosen_or_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    limits = AgentLimits()
    chosen = resolve_ports((Port(name="a"), Port(name="b")), {}, (), limits)
    assert len({*chosen.values()}) == 2
    assert all(is_free(number) for number in chosen.values())
    assert resolve_ports((Port(name="a"),), chosen, (), limits) == {"a": chosen["a"]}
    assert resolve_ports((Port(name="a"),), chosen, {chosen["a"]}, limits) != {"a": chosen["a"]}
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = server.getsockname()[1]
        assert resolve_ports((Port(name="a"),), {"a": busy}, (), limits)["a"] != busy
        with pytest.raises(PortTaken, match=f"port {busy} \\(a\\)"):
            resolve_ports((Port(name="a", host_port=busy),), {}, (), limits)
    with pytest.raises(PortTaken, match="no free port"):
        resolve_ports((Port(name="a"),), {}, range(65536), replace(limits, port_tries_max=3))


def test_a_data_directory_has_one_owner(tmp_path: Path) -> None:
    import os

    lock = lock_data_dir(tmp_path / "data")
    with pytest.raises(DataDirLocked, match=f"pid {os.getpid()}"):
        lock_data_dir(tmp_path / "data")
    os.close(lock)
    os.close(lock_data_dir(tmp_path / "data"))
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o711
