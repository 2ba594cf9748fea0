"""Protobuf messages as plain values for JSON and YAML.

camelCase names in the order of the proto, every field present, whole numbers as numbers (64-bit unsigned ids as
hexadecimal text, which no reader of JSON rounds), enum values without their prefix, bytes as text.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message


def to_plain(message: Message) -> dict[str, Any]:
    """Return the message as a dict of plain values, nested ones included."""
    plain: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            # An arm of a oneof that is not taken says nothing; a sub-message that is absent says so.
            if field.containing_oneof is None:
                plain[field.json_name] = None
            continue
        plain[field.json_name] = _field(field, getattr(message, field.name))
    return plain


def _field(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {str(key): _value(inner, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_value(field, item) for item in value]
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return to_plain(value)
    if field.enum_type is not None:
        return enum_word(field.enum_type, value)
    if field.type == FieldDescriptor.TYPE_UINT64:
        return f"{value:x}"
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float):
        return round(value, 6)
    return value


def enum_word(enum: EnumDescriptor, number: int) -> str:
    """Return an enum value's name without the enum's prefix; "" for unspecified, the number for an unknown one."""
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in enum.name).lstrip("_") + "_"
    word = value.name.removeprefix(prefix)
    return "" if word == "UNSPECIFIED" else word
