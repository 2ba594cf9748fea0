"""A member that comes back with less than it had reached is told from one that comes back with everything."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from cloudless.adapters.member.progress import Progress
from cloudless.adapters.member.wal import last_index
from cloudless.core.membership.returning import Reached, find_divergence, find_outdated, newer

ENTRY, STATE, SNAPSHOT = 2, 3, 5


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def record(kind: int, data: bytes) -> bytes:
    """Return one frame as etcd writes it: padded to 8 bytes, the padding noted in the top byte."""
    body = number(1, kind) + number(2, 0xDEADBEEF) + varint(3 << 3 | 2) + varint(len(data)) + data
    padding = -len(body) % 8
    head = len(body) | (0x80 | padding) << 56 if padding else len(body)
    return struct.pack("<Q", head) + body + b"\0" * padding


def entry(term: int, index: int) -> bytes:
    return record(ENTRY, number(2, term) + number(3, index) + varint(4 << 3 | 2) + varint(3) + b"abc")


def write_log(etcd_dir: Path, first: int, *frames: bytes, zeros: int = 4096) -> Path:
    wal = etcd_dir / "member" / "wal"
    wal.mkdir(parents=True, exist_ok=True)
    segment = wal / f"{first:016x}-{first:016x}.wal"
    segment.write_bytes(b"".join(frames) + b"\0" * zeros)
    return segment


def test_a_log_ends_with_its_last_entry(tmp_path: Path) -> None:
    write_log(tmp_path, 0, entry(2, 4), record(STATE, number(1, 2)), entry(2, 5), entry(2, 300))
    assert last_index(tmp_path) == 300


def test_entries_of_a_newer_term_overwrite_what_followed(tmp_path: Path) -> None:
    write_log(tmp_path, 0, entry(2, 7), entry(2, 8), entry(3, 7))
    assert last_index(tmp_path) == 7


def test_a_new_segment_without_entries_goes_on_where_the_one_before_ended(tmp_path: Path) -> None:
    write_log(tmp_path, 0, entry(2, 41))
    write_log(tmp_path, 42)
    assert last_index(tmp_path) == 41


def test_a_snapshot_received_counts(tmp_path: Path) -> None:
    write_log(tmp_path, 0, entry(2, 7), record(SNAPSHOT, number(1, 5000)))
    assert last_index(tmp_path) == 5000


def test_a_log_cut_in_the_middle_of_a_record_ends_before_it(tmp_path: Path) -> None:
    segment = write_log(tmp_path, 0, entry(2, 7), entry(2, 8), zeros=0)
    segment.write_bytes(segment.read_bytes()[:-5])
    assert last_index(tmp_path) == 7


def test_no_flipped_bit_does_more_than_end_the_log_or_change_a_number(tmp_path: Path) -> None:
    whole = b"".join((entry(2, 7), record(SNAPSHOT, number(1, 5)), entry(2, 8)))
    for bit in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        write_log(tmp_path, 0, bytes(broken))
        assert last_index(tmp_path) >= 0


@pytest.mark.parametrize("nonsense", [b"\xff" * 64, struct.pack("<Q", 16) + b"\xff" * 16, b"\x01"])
def test_a_log_ends_where_it_cannot_be_read(tmp_path: Path, nonsense: bytes) -> None:
    write_log(tmp_path, 0, entry(2, 7), nonsense)
    assert last_index(tmp_path) == 7


def test_no_log_ends_at_nothing(tmp_path: Path) -> None:
    assert last_index(tmp_path) == 0


#     own member, log ends, witnesses, outdated
@pytest.mark.parametrize(
    ("log_ends", "said", "outdated"),
    [
        (10, [], False),
        (10, [("c2", Reached("a1", 10))], False),
        (10, [("c2", Reached("a1", 9)), ("c3", Reached("a1", 11))], True),
        (10, [("c2", Reached("b2", 5000))], False),
        (0, [("itself", Reached("a1", 1))], True),
    ],
)
def test_a_log_is_outdated_if_any_witness_of_the_same_member_saw_more(
    log_ends: int, said: list[tuple[str, Reached]], outdated: bool
) -> None:
    assert bool(find_outdated("a1", log_ends, said)) is outdated


def test_the_reason_names_who_saw_more() -> None:
    reason = find_outdated("a1", 10, [("c2", Reached("a1", 12)), ("c3", Reached("a1", 30))])
    assert reason == "etcd's log ends at index 10, but by the word of c3 this member had reached 30"


def test_of_one_member_the_farther_word_is_kept_and_a_new_member_begins_anew() -> None:
    assert newer(Reached("a1", 30), Reached("a1", 20)) == Reached("a1", 30)
    assert newer(Reached("a1", 30), Reached("a1", 31)) == Reached("a1", 31)
    assert newer(Reached("a1", 30), Reached("b2", 1)) == Reached("b2", 1)


def test_progress_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    written = Progress(Reached("a1", 7), "http://h:1", {"c2": Reached("b2", 8)}, {"c2": "h:2"})
    written.write(path)
    assert Progress.read(path) == written


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}', '{"format": 1, "reached": 7}'])
def test_damaged_progress_bears_witness_to_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "progress.json"
    assert Progress.read(path) == Progress()
    path.write_text(content)
    assert Progress.read(path) == Progress()
    path.write_text(json.dumps({"format": 1, "reached": None, "peer_url": "", "heard": {}, "addresses": {}}))
    assert Progress.read(path) == Progress()


THREE = frozenset({"c1", "c2", "c3"})


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"c2": (5, 77), "c3": (6, 88)}, False),
        ({"c2": (5, 1), "c3": (6, 88)}, False),
        ({"c2": (5, 1), "c3": (6, 2)}, True),
        ({"c2": (5, 1), "stranger": (6, 2)}, False),
        ({"c2": (5, 1), "c3": (999, 2)}, False),
    ],
    ids=["agreed", "one against one", "two against one", "not a voter", "a revision not known"],
)
def test_a_state_is_wrong_if_a_majority_of_the_voters_has_another(
    said: dict[str, tuple[int, int]], wrong: bool
) -> None:
    own = {5: 77, 6: 88, 999: None}
    assert bool(find_divergence(own, said, THREE)) is wrong


def test_two_voters_that_differ_accuse_nobody() -> None:
    assert find_divergence({5: 77}, {"c2": (5, 1)}, frozenset({"c1", "c2"})) == ""
