"""Where a member's write-ahead log ends, in Raft's terms, and how to commit all that stands in it.

For recovery only. A member that outlived the majority may hold entries of which it never learnt that they were
committed: the leader had its word and another's, answered the client, and died before it told. etcd's own way to
force a new cluster throws such entries away. Raft would keep them: in an election won by this log they would be
committed. `commit_all` says so in the log itself, by one more record with the commit index at the last entry.

    record of type 3    the hard state {1: term, 2: vote, 3: commit}; the last one in the log counts
    its checksum        CRC-32 (Castagnoli) of its data, going on from the checksum of the record before

Only on a copy, never on the directory itself.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from cloudless.adapters.member.wal import read_records

_ENTRY, _STATE, _SNAPSHOT = 2, 3, 5
_POLYNOMIAL = 0x82F63B78


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of a log. `term` and `index` are the last entry's; `commit` is how far it is known to be committed.

    `hard_term` and `vote` are of the last hard state; `offset` and `crc` are where the next record would go in
    `segment`, and the checksum it would go on from.
    """

    term: int
    index: int
    commit: int
    hard_term: int
    vote: int
    segment: Path
    offset: int
    crc: int


def find_log_end(etcd_dir: Path) -> LogEnd | None:
    """Return where the log of a member ends, None if there is no log. Raises OSError.

    What cannot be read ends the log there. Reads back as many segments as it takes to meet an entry.
    """
    segments = sorted((etcd_dir / "member" / "wal").glob("*.wal"))
    if not segments:
        return None
    end = _end_of(segments[-1])
    for segment in reversed(segments[:-1]):
        if end.index:
            break
        # A segment begins with the hard state and goes on where the one before ended: only the entry is missing.
        earlier = _end_of(segment)
        end = replace(end, term=earlier.term, index=earlier.index)
    return end


def commit_all(end: LogEnd) -> None:
    """Append a hard state that commits everything up to the log's last entry. Raises OSError.

    What follows the last whole record (a record cut off by a crash) is overwritten with zeros, as etcd would do.
    """
    data = b"".join(
        bytes([number << 3]) + _varint(value)
        for number, value in ((1, end.hard_term), (2, end.vote), (3, max(end.commit, end.index)))
    )
    crc = crc32c(data, end.crc)
    content = bytes([1 << 3, _STATE, 2 << 3]) + _varint(crc) + bytes([3 << 3 | 2]) + _varint(len(data)) + data
    padding = -len(content) % 8
    head = len(content) | ((0x80 | padding) << 56 if padding else 0)
    record = struct.pack("<Q", head) + content + bytes(padding)
    with end.segment.open("r+b") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.truncate(end.offset)
        file.seek(end.offset)
        file.write(record)
        file.truncate(max(size_bytes, end.offset + len(record)))
        file.flush()
        os.fsync(file.fileno())


def crc32c(data: bytes, crc: int = 0) -> int:
    """Return the CRC-32 (Castagnoli) of `data`, going on from `crc`. For small data: bit by bit."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _end_of(segment: Path) -> LogEnd:
    """Return where one segment ends; zeros for what it does not have."""
    term = index = commit = hard_term = vote = offset = crc = 0
    for record in read_records(segment.read_bytes()):
        offset, crc = record.ends_at, record.crc
        if record.kind == _ENTRY:
            # Not the highest: an entry of a newer term overwrites those that followed it.
            term, index = record.number(2), record.number(3)
        elif record.kind == _STATE:
            hard_term, vote, commit = record.number(1), record.number(2), record.number(3)
        elif record.kind == _SNAPSHOT and record.number(1) >= index:
            index, term = record.number(1), record.number(2)
    return LogEnd(term, index, commit, hard_term, vote, segment, offset, crc)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
