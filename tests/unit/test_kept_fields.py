"""What a later version added to a value survives a version that does not know it."""

from __future__ import annotations

from dataclasses import replace

from cloudless.core.keys import Key, Kind
from cloudless.core.model import Resources, WorkloadRecord, WorkloadSpec
from cloudless.rpc import codec
from cloudless.rpc.v1 import objects_pb2 as pb

KEY = Key(Kind.WORKLOAD, ("default", "web"))
RECORD = WorkloadRecord(namespace="default", name="web", uid="u", spec=WorkloadSpec(command=("run",)))


def later(**texts: str) -> bytes:
    """Return RECORD as a later version stores it: with a field of its own in the record, its spec and its requests."""
    stored = codec.to_stored(RECORD)
    for place, message in (
        ("record", stored.workload), ("spec", stored.workload.spec), ("requests", stored.workload.spec.requests),
    ):  # fmt: skip
        if place in texts:
            message.MergeFromString(_text_field(texts[place]))
    return stored.SerializeToString(deterministic=True)


def _text_field(text: str) -> bytes:
    """Return field number 90 with a short text, as protobuf writes it: tag (90 << 3 | 2, a varint), length, text."""
    return bytes([0xD2, 0x05, len(text)]) + text.encode()


def test_a_read_and_a_write_lose_nothing_at_any_depth() -> None:
    stored = later(record="outer", spec="inner", requests="innermost")
    assert codec.encode_record(codec.decode_record(KEY, stored)) == stored


def test_a_change_of_what_is_known_keeps_what_is_not() -> None:
    held = codec.decode_record(KEY, later(record="outer", spec="inner"))
    assert isinstance(held, WorkloadRecord)
    scaled = replace(held, spec=replace(held.spec, replicas=7), generation=2)
    stored = pb.StoredRecord.FromString(codec.encode_record(scaled))
    expected = pb.StoredRecord.FromString(later(record="outer", spec="inner"))
    expected.workload.generation, expected.workload.spec.replicas = 2, 7
    assert stored.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    assert b"outer" in stored.SerializeToString()
    assert b"inner" in stored.SerializeToString()


def test_values_that_differ_only_there_differ() -> None:
    one, two = (codec.decode_record(KEY, later(spec=text)) for text in ("this", "that"))
    assert one != two
    assert one != RECORD
    assert codec.decode_record(KEY, later()) == RECORD


def test_a_spec_shared_by_many_records_keeps_its_own() -> None:
    first, second = (codec.decode_record(KEY, later(spec=text)) for text in ("mine", "yours"))
    assert isinstance(first, WorkloadRecord)
    assert isinstance(second, WorkloadRecord)
    assert b"mine" in codec.encode_record(first)
    assert b"yours" in codec.encode_record(second)
    assert b"mine" not in codec.encode_record(replace(first, spec=second.spec))


def test_answers_carry_it_on_to_clients_that_know_it() -> None:
    held = codec.decode_record(KEY, later(record="outer"))
    assert b"outer" in codec.to_message(held, pb.WorkloadRecord).SerializeToString()


def test_what_is_computed_anew_has_nothing_unknown() -> None:
    held = codec.decode_record(KEY, later(requests="innermost"))
    assert isinstance(held, WorkloadRecord)
    assert (held.spec.requests + Resources()).unknown_fields == b""
