"""Read from etcd's write-ahead log how far it goes, before any etcd is started on it.

A member whose log ends earlier than the member had got has forgotten what it acknowledged and whom it voted for:
started as it is, it can help a minority to a majority. etcd itself does not notice, because an older log, or one cut
off at the end, looks like a good one.

    segment   <sequence>-<index of its first entry>.wal, allocated ahead: zeros follow the last record
    frame     8 bytes little endian: length in the low 56 bits; if the top bit is set, bits 56 to 58 are the padding
    record    protobuf {1: type, 2: crc, 3: data}; type 2 is an entry {2: term, 3: index}, type 3 the hard state
              {1: term, 2: vote, 3: commit}, type 5 a snapshot {1: index, 2: term}

The same in every etcd from 3.0 to 3.6 (server/storage/wal). Checksums are not verified: etcd does that when it starts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ENTRY, _SNAPSHOT = 2, 5
_INDEX_FIELDS = {_ENTRY: 3, _SNAPSHOT: 1}
_LENGTH = struct.Struct("<q")
_LENGTH_BITS = (1 << 56) - 1


@dataclass(frozen=True, slots=True)
class Record:
    """One whole record: its type, its running checksum, the bytes it holds, and where the next one begins."""

    kind: int
    crc: int
    data: bytes
    ends_at: int

    def number(self, field: int) -> int:
        """Return a number among the fields of what it holds, 0 if it is not there or makes no sense."""
        try:
            return _number(dict(_fields(self.data)), field)
        except ValueError:
            return 0


def last_index(etcd_dir: Path) -> int:
    """Return the raft index at which the log of a member ends, 0 if there is no log.

    What cannot be read ends the log there. Raises OSError.
    """
    segments = sorted((etcd_dir / "member" / "wal").glob("*.wal"))
    if not segments:
        return 0
    # The name alone tells that everything before its first entry had been written.
    index = max(0, int(segments[-1].stem.rpartition("-")[2], 16) - 1)
    for record in read_records(segments[-1].read_bytes()):
        if record.kind == _ENTRY:
            # Not the highest: an entry of a newer term overwrites those that followed it.
            index = record.number(_INDEX_FIELDS[_ENTRY])
        elif record.kind == _SNAPSHOT:
            index = max(index, record.number(_INDEX_FIELDS[_SNAPSHOT]))
    return index


def read_records(content: bytes) -> Iterator[Record]:
    """Yield the whole records of one segment, up to the zeros or the nonsense that follows."""
    at = 0
    while at + _LENGTH.size <= len(content):
        (head,) = _LENGTH.unpack_from(content, at)
        length, padding = head & _LENGTH_BITS, (head >> 56) & 7 if head < 0 else 0
        at += _LENGTH.size
        if head == 0 or at + length + padding > len(content):
            return
        try:
            record = _record(content[at : at + length], at + length + padding)
        except ValueError:
            return
        yield record
        at += length + padding


def _record(content: bytes, ends_at: int) -> Record:
    """Raises ValueError for what is no record."""
    fields = dict(_fields(content))
    data = fields.get(3, b"")
    if not isinstance(data, bytes):
        raise ValueError("a number where bytes belong")
    kind = _number(fields, 1)
    if kind in _INDEX_FIELDS:
        _number(dict(_fields(data)), _INDEX_FIELDS[kind])
    return Record(kind, _number(fields, 2), data, ends_at)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protobuf message. Raises ValueError for what is none."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == 0:
            yield tag >> 3, value
        elif tag & 7 == 2 and at + value <= len(message):
            yield tag >> 3, message[at : at + value]
            at += value
        else:
            raise ValueError("not a field that etcd's log has")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        result |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:
            return result, at
    raise ValueError("a number that does not end")


def _number(fields: dict[int, int | bytes], field: int) -> int:
    value = fields.get(field, 0)
    if not isinstance(value, int):
        raise ValueError("bytes where a number belongs")
    return value
