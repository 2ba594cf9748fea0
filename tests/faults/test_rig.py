"""The rig itself: its oracles find what they are for, a round that proves nothing fails, results are merged rightly."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cloudless.cli.dev.report import Ack, Sighting
from cloudless.cli.dev.writer import ANNOTATION, NAMESPACE
from cloudless.core.model import NodeStatus, Reachability, Record, WorkloadRecord
from cloudless.testing.builders import build_workload
from tests.faults.rig import oracles
from tests.faults.rig.proxy import Mode, Proxy
from tests.faults.rig.record import Change, StoreRecord
from tests.faults.rig.releases import build_release
from tests.faults.rig.results import merge
from tests.faults.rig.scenario import Scenario
from tests.faults.rig.trial import Trial


def written(name: str, number: int) -> WorkloadRecord:
    return replace(build_workload(name, namespace=NAMESPACE), annotations={ANNOTATION: str(number)})


def status(term: int) -> NodeStatus:
    return NodeStatus(reachability=Reachability.REACHABLE, term=term)


def record_of(*changes: tuple[int, Record]) -> StoreRecord:
    kept = [Change(revision, f"key-{revision}", record) for revision, record in changes]
    return StoreRecord(next_revision=100, changes=kept)


def acked(name: str, number: int, revision: int) -> Ack:
    return Ack(name, number, generation=1, revision=revision, sent_s=0.0, acked_s=0.0)


def test_an_acknowledged_write_that_is_not_stored_at_its_revision_is_found() -> None:
    record = record_of((5, written("w", 1)), (7, written("w", 2)))
    assert record.lost([acked("w", 1, 5), acked("w", 2, 7)]) == []
    assert len(record.lost([acked("w", 2, 6)])) == 1
    assert len(record.lost([acked("w", 3, 7)])) == 1


def test_a_write_that_took_effect_twice_is_found() -> None:
    assert record_of((5, written("w", 1)), (7, written("w", 2))).repeated() == []
    assert len(record_of((5, written("w", 1)), (6, written("w", 2)), (7, written("w", 1))).repeated()) == 1


def test_a_leaders_write_after_a_later_leaders_is_found() -> None:
    assert record_of((5, status(3)), (6, status(3)), (7, status(9))).late_terms() == []
    assert len(record_of((5, status(9)), (6, status(3))).late_terms()) == 1


@pytest.mark.parametrize(
    ("sightings", "findings"),
    [
        ([("c1", 3, "c1"), ("c2", 3, "c1"), ("c1", 9, "c2")], 0),
        ([("c1", 3, "c1"), ("c2", 3, "c2")], 1),
        ([("c1", 9, "c2"), ("c1", 3, "c1")], 1),
        ([("c1", 9, "c2"), ("c2", 3, "c1")], 0),
    ],
)
def test_a_term_with_two_leaders_or_that_goes_back_is_found(
    sightings: list[tuple[str, int, str]], findings: int
) -> None:
    seen = [Sighting(0.0, coordinator, term, leader) for coordinator, term, leader in sightings]
    evidence = SimpleNamespace(record=record_of(), load=SimpleNamespace(sightings=seen))
    assert len(oracles.one_effective_leader(cast("Any", evidence))) == findings


def test_a_round_in_which_nothing_was_settled_fails(tmp_path: Path) -> None:
    trial = Trial(Scenario((1,)), tmp_path, Path("etcd"))
    with pytest.raises(AssertionError, match="proves nothing"):
        for _ in trial.rounds():
            pass


def test_a_skipped_run_replaces_no_real_one_and_tests_that_are_gone_are_forgotten() -> None:
    old = [{"test": "a", "outcome": "passed"}, {"test": "gone", "outcome": "passed"}]
    new = [{"test": "a", "outcome": "skipped"}, {"test": "b", "outcome": "skipped"}]
    assert [(r["test"], r["outcome"]) for r in merge(old, new, {"a", "b"})] == [("a", "passed"), ("b", "skipped")]
    assert merge(old, [{"test": "a", "outcome": "failed"}], {"a"}) == [{"test": "a", "outcome": "failed"}]


async def test_the_proxy_swallows_answers_and_holds_and_closes_connections() -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked.append(line)
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy = Proxy(f"{host}:{port}")
    await proxy.start()
    proxy_host, _, proxy_port = proxy.address.rpartition(":")
    reader, writer = await asyncio.open_connection(proxy_host, int(proxy_port))

    async def heard(line: bytes) -> bool:
        writer.write(line)
        try:
            async with asyncio.timeout(0.3):
                return await reader.readline() == line
        except TimeoutError:
            return False

    assert await heard(b"one\n")
    await proxy.set(Mode.MUTE)
    assert not await heard(b"two\n")
    assert asked == [b"one\n", b"two\n"]
    await proxy.set(Mode.HOLE)
    assert not await heard(b"three\n")
    assert len(asked) == 2
    await proxy.set(Mode.PASS)
    assert await reader.readline() == b"three\n"
    await proxy.set(Mode.CLOSED)
    assert await reader.read() == b""
    await proxy.close()
    writer.close()
    server.close()


def test_a_later_release_can_be_made_from_this_one(tmp_path: Path) -> None:
    release = build_release(tmp_path, 1)
    command = [sys.executable, "-m", "cloudless.cli.main", "version"]
    said = subprocess.run(command, cwd=release.tree, capture_output=True, text=True)
    assert release.version in said.stdout, said.stderr
