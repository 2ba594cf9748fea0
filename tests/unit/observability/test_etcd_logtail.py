"""etcd's log, passed on: levels, words, bounds, and what becomes of it when the file is cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudless.adapters.member.logtail import READ_BYTES_MAX, EtcdLine, LogTail, parse_line

SLOW = {
    "level": "warn",
    "ts": "2026-01-01T00:00:00.000000Z",
    "caller": "txn/util.go:93",
    "msg": "apply request took too long",
    "took": "201.2ms",
    "expected-duration": "100ms",
    "prefix": "",
}


def test_a_line_of_etcd_keeps_its_words_and_values() -> None:
    line = parse_line(json.dumps(SLOW))
    assert line == EtcdLine("WARNING", "apply request took too long", "took: 201.2ms, expected-duration: 100ms")
    assert line.text == "apply request took too long (took: 201.2ms, expected-duration: 100ms)"


@pytest.mark.parametrize(
    ("level", "ours"), [("debug", "DEBUG"), ("info", "DEBUG"), ("error", "ERROR"), ("fatal", "ERROR"), ("?", "WARNING")]
)
def test_levels_are_brought_down_to_ours(level: str, ours: str) -> None:
    line = parse_line(json.dumps({"level": level, "msg": "x"}))
    assert line is not None
    assert line.level == ours


def test_a_panic_is_told_without_its_stack() -> None:
    assert parse_line("panic: tocommit(11) is out of range") == EtcdLine(
        "ERROR", "panic: tocommit(11) is out of range", ""
    )
    stack = ("goroutine 1 [running]:", "\tfile.go:27 +0x51", "go.uber.org/zap.(*Logger).Panic(0x1)", "")
    assert [parse_line(line) for line in stack] == [None] * 4


def test_what_is_to_be_expected_is_not_passed_on() -> None:
    assert parse_line('{"level":"warn","msg":"simple token is not cryptographically signed"}') is None


def test_the_grpc_library_inside_of_etcd_is_heard_only_by_who_looks_closely() -> None:
    line = parse_line("2026/11/24 01:13:05 WARNING: [core] [Server #5] grpc: failed to write status: closing")
    assert line == EtcdLine("DEBUG", "gRPC", "[Server #5] grpc: failed to write status: closing")


def test_values_are_short() -> None:
    line = parse_line(json.dumps({"level": "warn", "msg": "m" * 9_000, "request": "r" * 9_000}))
    assert line is not None
    assert len(line.text) < 500


def test_only_what_is_new_is_passed_on_and_half_a_line_waits(tmp_path: Path) -> None:
    told: list[EtcdLine] = []
    path = tmp_path / "etcd.log"
    path.write_text('{"level":"warn","msg":"old"}\n')
    tail = LogTail(path, told.append)
    tail.look()
    with path.open("a") as file:
        file.write('{"level":"warn","msg":"one"}\n{"level":"warn",')
    tail.look()
    assert [line.kind for line in told] == ["one"]
    with path.open("a") as file:
        file.write('"msg":"two"}\n')
    tail.look()
    assert [line.kind for line in told] == ["one", "two"]


def test_a_log_that_was_cut_is_read_from_its_new_beginning(tmp_path: Path) -> None:
    told: list[EtcdLine] = []
    path = tmp_path / "etcd.log"
    path.write_text("x" * 1_000)
    tail = LogTail(path, told.append)
    path.write_text('{"level":"error","msg":"after"}\n')
    tail.look()
    assert [(line.level, line.kind) for line in told] == [("ERROR", "after")]


def test_more_than_is_read_at_once_is_skipped_and_said_so(tmp_path: Path) -> None:
    told: list[EtcdLine] = []
    path = tmp_path / "etcd.log"
    tail = LogTail(path, told.append)
    line = json.dumps(SLOW) + "\n"
    path.write_text(line * (3 * READ_BYTES_MAX // len(line)))
    tail.look()
    assert told[0].kind.startswith("more was written")
    assert {one.kind for one in told[1:]} == {"apply request took too long"}
    assert sum(len(one.text) for one in told) < READ_BYTES_MAX


def test_a_log_that_is_not_there_yet_is_no_fault(tmp_path: Path) -> None:
    told: list[EtcdLine] = []
    LogTail(tmp_path / "none", told.append).look()
    assert told == []
