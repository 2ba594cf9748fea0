"""JSON schemas of messages, as protobuf's JSON mapping writes and reads them.

What is asked with names every field it takes, and no other. What is only answered may gain fields with every version;
those that are always there are required.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from cloudless.core.identity.rules import PACKAGE
from cloudless.rpc.comments import load_comments
from cloudless.rpc.json_request import is_map

Schema = dict[str, Any]

_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1, "int32"),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1, "uint32"),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1, "int64"),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1, "uint64"),
}
_LONG = ("int64", "uint64")
_FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


def name_of(described: Descriptor | EnumDescriptor) -> str:
    return str(described.full_name).removeprefix(PACKAGE)


def refer(described: Descriptor | EnumDescriptor) -> Schema:
    return {"$ref": f"#/components/schemas/{name_of(described)}"}


def comment_on(full_name: str) -> Schema:
    """Return what the protos say of it as a description, nothing if they say nothing."""
    text = load_comments().get(full_name, "")
    return {"description": text} if text else {}


def build_schemas(requests: Iterable[Descriptor], answers: Iterable[Descriptor]) -> dict[str, Schema]:
    """Return the schemas of messages and of all that they hold, by name."""
    asked = dict(_all_within(requests))
    found: dict[str, Schema] = {}
    for name, described in {**asked, **dict(_all_within(answers))}.items():
        if isinstance(described, EnumDescriptor):
            found[name] = {"type": "string", "enum": [value.name for value in described.values]}
        else:
            found[name] = _of_message(described, asked=name in asked)
        found[name] |= comment_on(described.full_name)
    return dict(sorted(found.items()))


def of_field(field: Any) -> Schema:
    """Return the schema of a field's value in a JSON object, with its comment."""
    if is_map(field):
        schema = {"type": "object", "additionalProperties": _of_value(field.message_type.fields_by_name["value"])}
    elif field.is_repeated:
        schema = {"type": "array", "items": _of_value(field)}
    else:
        schema = _of_value(field)
    return schema | comment_on(field.full_name)


def of_parameter(field: FieldDescriptor) -> Schema:
    """Return the schema of a field's value in the query."""
    if is_map(field):
        return {"type": "array", "items": {"type": "string", "pattern": "^[^=]+=.*$"}}
    return {"type": "array", "items": _of_text(field)} if field.is_repeated else _of_text(field)


def _of_text(field: FieldDescriptor) -> Schema:
    if field.enum_type is not None:
        names = [value.name for value in field.enum_type.values]
        prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in field.enum_type.name).lstrip("_") + "_"
        return {"type": "string", "enum": [name.removeprefix(prefix).lower() for name in names]}
    if field.cpp_type in _BITS:
        low, high, name = _BITS[field.cpp_type]
        return {"type": "integer", "format": name, "minimum": low, "maximum": high}
    if field.cpp_type in _FLOATS:
        return {"type": "number"}
    return {"type": "boolean" if field.cpp_type == field.CPPTYPE_BOOL else "string"}


def _all_within(messages: Iterable[Descriptor]) -> Iterator[tuple[str, Descriptor | EnumDescriptor]]:
    waiting, seen = list(messages), set()
    while waiting:
        message = waiting.pop()
        if message.full_name in seen:
            continue
        seen.add(message.full_name)
        if not message.GetOptions().map_entry:
            yield name_of(message), message
        for field in message.fields:
            if field.enum_type is not None:
                yield name_of(field.enum_type), field.enum_type
            elif field.message_type is not None:
                waiting.append(field.message_type)


def _of_message(message: Descriptor, *, asked: bool) -> Schema:
    schema: Schema = {"type": "object", "properties": {field.json_name: of_field(field) for field in message.fields}}
    if asked:
        return {**schema, "additionalProperties": False}
    always = [field.json_name for field in message.fields if not field.has_presence]
    return {**schema, "required": always} if always else schema


def _of_value(field: Any) -> Schema:
    if field.enum_type is not None:
        return refer(field.enum_type)
    if field.message_type is not None:
        return refer(field.message_type)
    if field.cpp_type in _BITS:
        low, high, name = _BITS[field.cpp_type]
        number = {"type": "integer", "format": name, "minimum": low, "maximum": high}
        return {"anyOf": [{"type": "string", "pattern": "^-?[0-9]{1,20}$"}, number]} if name in _LONG else number
    if field.cpp_type in _FLOATS:
        return {"anyOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}]}
    if field.type == field.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return {"type": "boolean" if field.cpp_type == field.CPPTYPE_BOOL else "string"}
