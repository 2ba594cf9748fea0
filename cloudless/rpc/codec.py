"""Translate between the core's frozen values and protobuf messages, field by field by name.

Both sides carry the same names (a test walks all pairs), so one pair of functions per class, built once
from the two descriptions, serves every object. Enums travel as `<CLASS>_<MEMBER>`; an unspecified or
unknown enum value takes the field's default, or is refused where there is none. Where the default is None,
unspecified is None and unknown is refused: None has a meaning of its own. Absent messages, and absent
`optional` fields, take the field's default.

Fields of a later version are kept as they came (`Evolving.unknown_fields`) and written back with the value. An unknown
enum value is not: new ones are used only from their feature level on.

Raises `Malformed` for what cannot be a value of the class; never anything else.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from cloudless.core.identity.names import kind_of
from cloudless.core.keys import Key, Kind
from cloudless.core.model import (
    AuthorityRecord,
    AutopilotRecord,
    AutopilotStatus,
    BackupSettings,
    BackupStatus,
    ClusterRecord,
    CoordinatorRecord,
    EventRecord,
    IdentityRecord,
    JoinRecord,
    KeyRotationRecord,
    LeaderRecord,
    NodeInfo,
    NodeSpec,
    NodeStatus,
    Record,
    ReplacementRecord,
    RequestRecord,
    RevisionRecord,
    RolloutRecord,
    SchedulerRecord,
    Suspicion,
    TaskDesired,
    TaskObserved,
    TokenRecord,
    WorkloadRecord,
)
from cloudless.rpc.v1 import objects_pb2 as pb

FORMAT = 1
"""The storage format this version writes, and the newest it reads."""

KEPT = "unknown_fields"
T = TypeVar("T")


class Malformed(ValueError):
    """The bytes or message cannot be read as the value they should be."""


# --- one class ----------------------------------------------------------------------------------

_Decode = Callable[[Any], Any]
_Encode = Callable[[Any], Any]


def to_message(value: Any, message_class: Any) -> Any:
    """Return `value` (a dataclass of the core) as a message of `message_class`."""
    return _encoder(type(value), message_class)(value)


def from_message(message: Message, value_class: type[T]) -> T:
    """Return `message` as a `value_class`. Raises Malformed."""
    decoded: T = _decoder(value_class, type(message))(message)
    return decoded


_cached: Callable[[Callable[..., Any]], Callable[..., Any]] = functools.cache


@_cached
def _encoder(value_class: Any, message_class: Any) -> _Encode:
    converts = {
        name: _field_encoder(hint, message_class, name)
        for name, hint in typing.get_type_hints(value_class).items()
        if name != KEPT
    }
    take_plain = _taker([name for name, convert in converts.items() if convert is None])
    converted = [(name, convert) for name, convert in converts.items() if convert is not None]

    def encode(value: Any) -> Any:
        made = take_plain(value)
        for name, convert in converted:
            made[name] = convert(getattr(value, name))
        message = message_class(**made)
        if value.unknown_fields:
            message.MergeFromString(value.unknown_fields)
        return message

    return encode


@_cached
def _decoder(value_class: Any, message_class: Any) -> _Decode:
    hints = typing.get_type_hints(value_class)
    plain, special = [], []
    for spec in dataclasses.fields(value_class):
        if spec.name == KEPT:
            continue
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        present, convert = _field_decoder(hints[spec.name], message_class, spec.name)
        if convert is None:
            plain.append(spec.name)
        else:
            special.append((spec.name, present, convert, required))
    take_plain = _taker(plain)

    def decode(message: Any) -> Any:
        made = take_plain(message)
        for name, present, convert, required in special:
            if present is not None and not present(message):
                if required:
                    raise Malformed(f"{value_class.__name__}.{name} is missing")
                continue
            made[name] = convert(getattr(message, name))
        if len(UnknownFieldSet(message)):
            made[KEPT] = _read_unknown(message)
        return value_class(**made)

    return decode


def _read_unknown(message: Any) -> bytes:
    """Return the fields that this version does not know, as they are on the wire; those inside of others are theirs."""
    bare = type(message)()
    bare.CopyFrom(message)
    for field, _ in bare.ListFields():
        bare.ClearField(field.name)
    unknown: bytes = bare.SerializeToString(deterministic=True)
    return unknown


def _taker(names: list[str]) -> Callable[[Any], dict[str, Any]]:
    """Return what reads these attributes of an object into a dict, all in one call."""
    if not names:
        return lambda _: {}
    if len(names) == 1:
        (name,) = names
        return lambda value: {name: getattr(value, name)}
    take = operator.attrgetter(*names)
    return lambda value: dict(zip(names, take(value), strict=True))


# A few specs are shared by many records: each is translated once, and kept once. Both bounds limit memory.
_SHARED_MAX = 1_024
_SHARED_BYTES_MAX = 4_096


def _shared_decode(decode: _Decode, message_class: Any) -> _Decode:
    """Return `decode` that gives equal messages the same (immutable) value."""

    @functools.lru_cache(maxsize=_SHARED_MAX)
    def decode_bytes(raw: bytes) -> Any:
        return decode(message_class.FromString(raw))

    def decode_shared(message: Any) -> Any:
        raw = message.SerializeToString()
        return decode_bytes(raw) if len(raw) <= _SHARED_BYTES_MAX else decode(message)

    return decode_shared


def _shared_encode(encode: _Encode) -> _Encode:
    """Return `encode` that remembers the message of a value, by identity; whoever gets it copies it."""
    held: dict[int, tuple[Any, Any]] = {}

    def encode_once(value: Any) -> Any:
        if value is None:
            return None
        known = held.get(id(value))
        if known is not None:
            return known[1]
        if len(held) >= _SHARED_MAX:
            held.clear()
        message = encode(value)
        if message.ByteSize() <= _SHARED_BYTES_MAX:
            held[id(value)] = (value, message)  # held on to, the value keeps its identity
        return message

    return encode_once


def _strip_optional(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        (inner,) = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return inner
    return hint


def _sub_message_class(message_class: Any, name: str) -> Any:
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(message_class.DESCRIPTOR.fields_by_name[name].message_type)


def _enum_prefix(hint: type[Enum]) -> str:
    return "".join(f"_{c}" if c.isupper() else c.upper() for c in hint.__name__).lstrip("_") + "_"


def _enum_maps(hint: type[Enum], message_class: Any, name: str) -> tuple[dict[Enum, int], dict[int, Enum]]:
    values = message_class.DESCRIPTOR.fields_by_name[name].enum_type.values_by_name
    prefix = _enum_prefix(hint)
    to_wire = {member: values[prefix + member.name].number for member in hint}
    return to_wire, {number: member for member, number in to_wire.items()}


def _field_encoder(hint: Any, message_class: Any, name: str) -> _Encode | None:
    """Return how the field's value becomes the message's; None: as it is."""
    may_be_none, hint = isinstance(hint, types.UnionType), _strip_optional(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        to_wire = _enum_maps(hint, message_class, name)[0]
        return to_wire.get if may_be_none else to_wire.__getitem__  # None: left out
    if dataclasses.is_dataclass(hint):
        return _shared_encode(_encoder(hint, _sub_message_class(message_class, name)))
    if origin is tuple and dataclasses.is_dataclass(args[0]):
        convert = _encoder(args[0], _sub_message_class(message_class, name))
        return lambda values: [convert(value) for value in values]
    return None


def _field_decoder(hint: Any, message_class: Any, name: str) -> tuple[Callable[[Any], bool] | None, _Decode | None]:
    """Return (is it present?, convert); None for fields that always are, and for those taken as they are."""
    may_be_none, hint = isinstance(hint, types.UnionType), _strip_optional(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        known = _enum_maps(hint, message_class, name)[1]
        if may_be_none:
            return (lambda message: getattr(message, name) != 0), functools.partial(_known_member, known, name)
        return (lambda message: getattr(message, name) in known), known.__getitem__
    if dataclasses.is_dataclass(hint):
        sub = _sub_message_class(message_class, name)
        return (lambda message: message.HasField(name)), _shared_decode(_decoder(hint, sub), sub)
    if origin is tuple:
        if dataclasses.is_dataclass(args[0]):
            item = _decoder(args[0], _sub_message_class(message_class, name))
            return None, lambda values: tuple(item(value) for value in values)
        return None, tuple
    if origin in (dict, Mapping, collections.abc.Mapping):
        return None, dict
    if message_class.DESCRIPTOR.fields_by_name[name].has_presence:
        return (lambda message: message.HasField(name)), _as_it_is
    return None, None


def _known_member(known: dict[int, Enum], name: str, number: int) -> Enum:
    if number not in known:
        raise Malformed(f"{name} is {number}, which this version does not know")
    return known[number]


def _as_it_is(value: Any) -> Any:
    return value


# --- stored records -----------------------------------------------------------------------------

_ARMS: dict[str, tuple[type[Any], Any]] = {
    "cluster": (ClusterRecord, pb.ClusterRecord),
    "coordinator": (CoordinatorRecord, pb.CoordinatorRecord),
    "leader": (LeaderRecord, pb.LeaderRecord),
    "suspicion": (Suspicion, pb.Suspicion),
    "node_spec": (NodeSpec, pb.NodeSpec),
    "node_info": (NodeInfo, pb.NodeInfo),
    "node_status": (NodeStatus, pb.NodeStatus),
    "workload": (WorkloadRecord, pb.WorkloadRecord),
    "task_desired": (TaskDesired, pb.TaskDesired),
    "task_observed": (TaskObserved, pb.TaskObserved),
    "event": (EventRecord, pb.EventRecord),
    "request": (RequestRecord, pb.RequestRecord),
    "backup_settings": (BackupSettings, pb.BackupSettings),
    "backup_status": (BackupStatus, pb.BackupStatus),
    "authority": (AuthorityRecord, pb.AuthorityRecord),
    "token": (TokenRecord, pb.TokenRecord),
    "identity": (IdentityRecord, pb.IdentityRecord),
    "key_rotation": (KeyRotationRecord, pb.KeyRotationRecord),
    "autopilot": (AutopilotRecord, pb.AutopilotRecord),
    "autopilot_status": (AutopilotStatus, pb.AutopilotStatus),
    "scheduler": (SchedulerRecord, pb.SchedulerRecord),
    "join": (JoinRecord, pb.JoinRecord),
    "replacement": (ReplacementRecord, pb.ReplacementRecord),
    "revision": (RevisionRecord, pb.RevisionRecord),
    "rollout": (RolloutRecord, pb.RolloutRecord),
}
_ARM_OF_CLASS = {value_class: (arm, message_class) for arm, (value_class, message_class) in _ARMS.items()}
_ARM_OF_KIND: dict[Kind, str] = {
    Kind.CLUSTER: "cluster",
    Kind.COORDINATOR: "coordinator",
    Kind.ELECTION: "leader",
    Kind.SUSPICION: "suspicion",
    Kind.NODE_SPEC: "node_spec",
    Kind.NODE_INFO: "node_info",
    Kind.NODE_STATUS: "node_status",
    Kind.WORKLOAD: "workload",
    Kind.TASK_DESIRED: "task_desired",
    Kind.TASK_OBSERVED: "task_observed",
    Kind.EVENT: "event",
    Kind.REQUEST: "request",
    Kind.BACKUP_SETTINGS: "backup_settings",
    Kind.BACKUP_STATUS: "backup_status",
    Kind.AUTHORITY: "authority",
    Kind.TOKEN: "token",
    Kind.IDENTITY: "identity",
    Kind.KEY_ROTATION: "key_rotation",
    Kind.AUTOPILOT: "autopilot",
    Kind.AUTOPILOT_STATUS: "autopilot_status",
    Kind.SCHEDULER: "scheduler",
    Kind.JOIN: "join",
    Kind.REPLACEMENT: "replacement",
    Kind.REVISION: "revision",
    Kind.ROLLOUT: "rollout",
}


def to_stored(record: Record) -> pb.StoredRecord:
    """Wrap a record in its envelope."""
    arm, message_class = _ARM_OF_CLASS[type(record)]
    return pb.StoredRecord(format=FORMAT, **{arm: to_message(record, message_class)})


def encode_record(record: Record) -> bytes:
    """Return the bytes stored for `record`; equal records give equal bytes."""
    encoded: bytes = to_stored(record).SerializeToString(deterministic=True)
    return encoded


def decode_record(key: Key, value: bytes) -> Record:
    """Return the record stored under `key`.

    Raises Malformed for bytes that do not parse, a format newer than ours, a record of another kind than
    the key's, or one that names another object than the key does.
    """
    stored = pb.StoredRecord()
    try:
        stored.ParseFromString(value)
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        raise Malformed(f"not a stored record: {error}") from error
    if not 1 <= stored.format <= FORMAT:
        raise Malformed(f"format {stored.format} is not known to this version (it reads up to {FORMAT})")
    arm = stored.WhichOneof("record")
    if arm != _ARM_OF_KIND[key.kind]:
        raise Malformed(f"holds {arm or 'nothing'} where {_ARM_OF_KIND[key.kind]} belongs")
    record: Record = from_message(getattr(stored, arm), _ARMS[arm][0])
    _check_names(key, record)
    return record


def _check_names(key: Key, record: Record) -> None:
    """Refuse a record whose own names differ from its key's: the state machine's indexes rely on them."""
    match record:
        case WorkloadRecord():
            names: tuple[str, ...] = (record.namespace, record.name)
        case (
            TaskDesired()
            | NodeInfo()
            | CoordinatorRecord()
            | EventRecord()
            | AuthorityRecord()
            | TokenRecord()
            | JoinRecord()
            | ReplacementRecord()
        ):
            names = (record.id,)
        case RevisionRecord():
            names = (record.namespace, record.workload, str(record.generation))
        case RolloutRecord():
            names = (record.namespace, record.workload)
        case IdentityRecord():
            names = (kind_of(record.role).value, record.name)
        case TaskObserved():
            names = (record.task_id,)
        case Suspicion():
            names = (str(record.term), record.coordinator_id)
        case _:
            return
    if names != key.parts:
        raise Malformed(f"names {'/'.join(names)} under the key of {'/'.join(key.parts)}")
