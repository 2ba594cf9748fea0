"""Records and their protobuf messages say the same: same fields, same enum members, no value lost between them."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless.core import model
from cloudless.core.identity.names import kind_of
from cloudless.core.keys import Key, Kind
from cloudless.rpc import codec
from cloudless.rpc.v1 import objects_pb2 as pb

RECORDS: tuple[type[Any], ...] = typing.get_args(model.Record)

KEY_OF: dict[type[Any], Callable[[Any], Key]] = {
    model.ClusterRecord: lambda r: Key(Kind.CLUSTER, ()),
    model.CoordinatorRecord: lambda r: Key(Kind.COORDINATOR, (r.id,)),
    model.LeaderRecord: lambda r: Key(Kind.ELECTION, ("00000000000000ff",)),
    model.Suspicion: lambda r: Key(Kind.SUSPICION, (str(r.term), r.coordinator_id)),
    model.NodeSpec: lambda r: Key(Kind.NODE_SPEC, ("node-1",)),
    model.NodeInfo: lambda r: Key(Kind.NODE_INFO, (r.id,)),
    model.NodeStatus: lambda r: Key(Kind.NODE_STATUS, ("node-1",)),
    model.WorkloadRecord: lambda r: Key(Kind.WORKLOAD, (r.namespace, r.name)),
    model.TaskDesired: lambda r: Key(Kind.TASK_DESIRED, (r.id,)),
    model.TaskObserved: lambda r: Key(Kind.TASK_OBSERVED, (r.task_id,)),
    model.EventRecord: lambda r: Key(Kind.EVENT, (r.id,)),
    model.RequestRecord: lambda r: Key(Kind.REQUEST, (r.id,)),
    model.BackupSettings: lambda r: Key(Kind.BACKUP_SETTINGS, ()),
    model.BackupStatus: lambda r: Key(Kind.BACKUP_STATUS, ()),
    model.AuthorityRecord: lambda r: Key(Kind.AUTHORITY, (r.id,)),
    model.TokenRecord: lambda r: Key(Kind.TOKEN, (r.id,)),
    model.IdentityRecord: lambda r: Key(Kind.IDENTITY, (kind_of(r.role).value, r.name)),
    model.KeyRotationRecord: lambda r: Key(Kind.KEY_ROTATION, ()),
    model.AutopilotRecord: lambda r: Key(Kind.AUTOPILOT, ()),
    model.AutopilotStatus: lambda r: Key(Kind.AUTOPILOT_STATUS, ()),
    model.SchedulerRecord: lambda r: Key(Kind.SCHEDULER, ()),
    model.JoinRecord: lambda r: Key(Kind.JOIN, (r.id,)),
    model.RevisionRecord: lambda r: Key(Kind.REVISION, (r.namespace, r.workload, str(r.generation))),
    model.RolloutRecord: lambda r: Key(Kind.ROLLOUT, (r.namespace, r.workload)),
    model.ReplacementRecord: lambda r: Key(Kind.REPLACEMENT, (r.id,)),
}


def without_none(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        (hint,) = [arg for arg in typing.get_args(hint) if arg is not types.NoneType]
    return hint


def hints_of(value_class: type[Any]) -> dict[str, Any]:
    """Return the types of a value's fields by name, without what is kept of later versions."""
    return {name: hint for name, hint in typing.get_type_hints(value_class).items() if name != codec.KEPT}


def parts_of(hint: Any) -> tuple[Any, ...]:
    """Return the classes a field's type is made of."""
    hint = without_none(hint)
    return (hint, *typing.get_args(hint))


def pairs() -> Iterator[tuple[type[Any], Any]]:
    """Yield each record class and each class inside one, with its message."""
    queue: list[tuple[type[Any], Any]] = [
        (record, pb.DESCRIPTOR.message_types_by_name[record.__name__]) for record in RECORDS
    ]
    seen: set[type[Any]] = set()
    while queue:
        value_class, descriptor = queue.pop(0)
        if value_class in seen:
            continue
        seen.add(value_class)
        yield value_class, descriptor
        for name, hint in hints_of(value_class).items():
            queue += [(part, descriptor.fields_by_name[name].message_type) for part in parts_of(hint) if is_value(part)]


def is_value(part: Any) -> bool:
    return isinstance(part, type) and dataclasses.is_dataclass(part)


PAIRS = list(pairs())
ENUM_FIELDS = [
    (part, descriptor.fields_by_name[name])
    for value_class, descriptor in PAIRS
    for name, hint in hints_of(value_class).items()
    for part in parts_of(hint)
    if isinstance(part, type) and issubclass(part, Enum)
]


def class_name(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else ""


# --- building any value -------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
}


def values_of(hint: Any, field: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for values of a field's type that its wire type can carry."""
    if isinstance(hint, types.UnionType):
        return st.none() | values_of(without_none(hint), field)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return st.lists(values_of(args[0], field), max_size=3).map(tuple)
    if origin in (dict, collections.abc.Mapping):
        value = field.message_type.fields_by_name["value"]
        return st.dictionaries(TEXT, values_of(args[1], value), max_size=3)
    if is_value(hint):
        return records_of(hint, field.message_type)
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    plain = {str: TEXT, bool: st.booleans(), float: st.floats(allow_nan=False), bytes: st.binary(max_size=20)}
    return INTEGERS[field.cpp_type] if hint is int else plain[hint]


def records_of(value_class: type[Any], descriptor: Any) -> st.SearchStrategy[Any]:
    hints = hints_of(value_class)
    made = {name: values_of(hint, descriptor.fields_by_name[name]) for name, hint in hints.items()}
    return st.builds(value_class, **made)


ANY_RECORD = st.one_of([records_of(r, pb.DESCRIPTOR.message_types_by_name[r.__name__]) for r in RECORDS])


# --- the tests ----------------------------------------------------------------------------------


def test_every_record_has_an_arm_in_the_envelope_and_the_other_way_round() -> None:
    arms: Any = pb.StoredRecord.DESCRIPTOR.oneofs_by_name["record"].fields
    assert sorted(arm.message_type.name for arm in arms) == sorted(record.__name__ for record in RECORDS)


def test_every_record_and_every_kind_is_covered_here() -> None:
    assert set(KEY_OF) == set(RECORDS)
    assert {part for part, _ in PAIRS} >= set(RECORDS)


def test_every_message_of_the_objects_file_belongs_to_a_value() -> None:
    assert set(pb.DESCRIPTOR.message_types_by_name) == {value.__name__ for value, _ in PAIRS} | {"StoredRecord"}


@pytest.mark.parametrize(("value_class", "descriptor"), PAIRS, ids=class_name)
def test_value_and_message_have_the_same_name_and_fields(value_class: type[Any], descriptor: Any) -> None:
    assert value_class.__name__ == descriptor.name
    assert {field.name for field in dataclasses.fields(value_class)} == {*descriptor.fields_by_name, codec.KEPT}


@pytest.mark.parametrize(("enum", "field"), ENUM_FIELDS, ids=class_name)
def test_enum_and_wire_have_the_same_members(enum: type[Enum], field: Any) -> None:
    prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in enum.__name__).upper().lstrip("_")
    wire = field.enum_type.values_by_name
    assert set(wire) == {f"{prefix}_UNSPECIFIED", *(f"{prefix}_{member.name}" for member in enum)}
    assert wire[f"{prefix}_UNSPECIFIED"].number == 0


@given(record=ANY_RECORD)
def test_record_survives_the_message(record: Any) -> None:
    message = codec.to_message(record, getattr(pb, type(record).__name__))
    assert codec.from_message(message, type(record)) == record


@pytest.mark.parametrize("record_class", RECORDS, ids=class_name)
def test_each_record_survives_the_store(record_class: type[Any]) -> None:
    @given(record=records_of(record_class, pb.DESCRIPTOR.message_types_by_name[record_class.__name__]))
    def survives(record: Any) -> None:
        stored = codec.encode_record(record)
        assert codec.decode_record(KEY_OF[record_class](record), stored) == record

    survives()


@given(record=ANY_RECORD)
def test_equal_records_give_equal_bytes_whatever_the_order_of_their_maps(record: Any) -> None:
    turned = {
        field.name: dict(reversed(held.items()))
        for field in dataclasses.fields(record)
        if isinstance(held := getattr(record, field.name), dict)
    }
    assert codec.encode_record(dataclasses.replace(record, **turned)) == codec.encode_record(record)


@given(record=ANY_RECORD, other=st.sampled_from(Kind))
def test_record_under_a_key_of_another_kind_is_malformed(record: Any, other: Kind) -> None:
    key = KEY_OF[type(record)](record)
    if other is not key.kind:
        with pytest.raises(codec.Malformed):
            codec.decode_record(Key(other, key.parts), codec.encode_record(record))


@given(value=st.binary(max_size=200), kind=st.sampled_from(Kind))
def test_any_bytes_are_a_record_or_malformed_and_never_crash(value: bytes, kind: Kind) -> None:
    try:
        codec.decode_record(Key(kind, ("x",)), value)
    except codec.Malformed:
        return


# --- records of before --------------------------------------------------------------------------

ALWAYS_WRITTEN = {
    ("AutopilotRecord", "cleanup_dead_voters"),
    ("AutopilotRecord", "dead_after_s"),
    ("AutopilotRecord", "stabilization_s"),
    ("AutopilotRecord", "min_quorum"),
    ("AutopilotRecord", "learner_stall_s"),
    ("AutopilotRecord", "catch_up_lag_max"),
    ("AutopilotRecord", "catch_up_stable_s"),
    ("AutopilotRecord", "voters_max"),
    ("SchedulerRecord", "pack"),
    ("SchedulerRecord", "affinity"),
    ("SchedulerRecord", "reliability"),
    ("SchedulerRecord", "cost"),
    ("SchedulerRecord", "network"),
    ("NodeInfo", "region"),
    ("WorkloadRecord", "generation"),
    ("WorkloadRecord", "task_generation"),
    ("TaskObserved", "exit_code"),
    ("BackupSettings", "enabled"),
    ("BackupSettings", "interval_s"),
    ("BackupSettings", "keep_last"),
    ("BackupSettings", "keep_daily"),
    ("BackupSettings", "keep_weekly"),
    ("BackupSettings", "verify"),
    ("TokenRecord", "uses_total"),
    ("TokenRecord", "uses_left"),
    ("WorkloadSpec", "replicas"),
    ("WorkloadSpec", "stop_grace_s"),
    ("TaskSpec", "stop_grace_s"),
    ("RestartPolicy", "backoff_s"),
    ("Rollout", "max_surge"),
}
"""Fields of the first version: a zero of theirs is stored as absence, so absence cannot mean another default."""


@pytest.mark.parametrize(("value_class", "descriptor"), PAIRS, ids=class_name)
def test_a_field_that_a_record_of_before_does_not_have_is_read_as_its_default(
    value_class: type[Any], descriptor: Any
) -> None:
    @settings(max_examples=5)
    @given(value=records_of(value_class, descriptor))
    def reads_default(value: Any) -> None:
        for field in dataclasses.fields(value_class):
            if field.name == codec.KEPT:
                continue
            made = codec.to_message(value, getattr(pb, value_class.__name__))
            made.ClearField(field.name)
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            if default is dataclasses.MISSING or (value_class.__name__, field.name) in ALWAYS_WRITTEN:
                continue
            assert getattr(codec.from_message(made, value_class), field.name) == default, field.name

    reads_default()


def test_an_effect_unknown_to_this_version_is_not_taken_for_every_effect() -> None:
    message = pb.Toleration(key="a", operator=pb.TOLERATION_OPERATOR_EXISTS)
    assert codec.from_message(message, model.Toleration).effect is None
    message.effect = 99  # type: ignore[assignment]
    with pytest.raises(codec.Malformed):
        codec.from_message(message, model.Toleration)


def test_a_probe_of_a_kind_unknown_to_this_version_makes_the_record_unreadable() -> None:
    message = pb.TaskSpec(liveness_probe=pb.Probe(kind=99))  # type: ignore[arg-type]
    with pytest.raises(codec.Malformed):
        codec.from_message(message, model.TaskSpec)
