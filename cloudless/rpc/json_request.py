"""Fill a request message from JSON values or from texts (of a path, a query), and say of every value what is wrong.

JSON is protobuf's own mapping of it: names in camelCase or as in the proto, 64-bit numbers as numbers or text, enum
values by name, bytes as base64. Beyond that mapping every fault is told, with the path of its field, and not only the
first one; a name that is no field, or is given twice, is a fault.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from cloudless.errors import InvalidSpec, Problem

DEPTH_MAX = 16
PROBLEMS_MAX = 20
SHOWN_MAX = 60
_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64,
}  # fmt: skip


def load_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that `raw` holds, an empty one if it is empty. Raises InvalidSpec."""
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw, object_pairs_hook=_pairs, parse_constant=_constant)
    except (ValueError, RecursionError) as error:  # also what is not UTF-8, and numbers of thousands of digits
        raise InvalidSpec([Problem("body", f"is not JSON: {_short(str(error))}")]) from error
    if not isinstance(value, dict):
        raise InvalidSpec([Problem("body", "must be a JSON object")])
    return value


def fill(message: Message, values: Mapping[str, Any]) -> None:
    """Set the fields of `message` to JSON values. Raises InvalidSpec with all problems, `PROBLEMS_MAX` at most."""
    problems = []
    for problem in _fill(message, values, "", DEPTH_MAX):
        problems.append(problem)
        if len(problems) == PROBLEMS_MAX:
            break
    if problems:
        raise InvalidSpec(problems)


def find_field(descriptor: Any, name: str) -> Any:
    """Return the field that is called so in JSON or in the proto, None if none is."""
    for field in descriptor.fields:
        if name in (field.json_name, field.name):
            return field
    return None


def read_texts(field: FieldDescriptor, texts: Sequence[str]) -> Any:
    """Return the JSON value that texts stand for; several for a list or a map (`key=value`). Raises ValueError."""
    if is_map(field):
        pairs = [text.partition("=") for text in texts]
        if wrong := [key for key, separator, _ in pairs if not separator or not key]:
            raise ValueError(f"must be key=value, not {_short(wrong[0])!r}")
        return {key: value for key, _, value in pairs}
    if field.is_repeated:
        return [_read_text(field, text) for text in texts]
    if len(texts) > 1:
        raise ValueError("is given more than once")
    return _read_text(field, texts[0])


def is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def describe(field: Any) -> str:
    """Return in words what a field takes."""
    if is_map(field):
        inner = field.message_type.fields_by_name["value"]
        return f"must be an object with {'texts' if inner.cpp_type == inner.CPPTYPE_STRING else 'values'}"
    one = _describe_one(field)
    return f"must be a list, each {one.removeprefix('must be ')}" if field.is_repeated else one


def _describe_one(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return f"must be one of {', '.join(value.name for value in field.enum_type.values)}"
    if field.message_type is not None:
        return "must be an object"
    if field.cpp_type in _NUMBERS:
        return "must be a whole number" + (" of 64 bits" if "64" in _type_name(field) else " of 32 bits")
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return "must be a number"
    if field.cpp_type == field.CPPTYPE_BOOL:
        return "must be true or false"
    return "must be base64 text" if field.type == field.TYPE_BYTES else "must be text"


def _type_name(field: FieldDescriptor) -> str:
    return "int64" if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else "int32"


def _fill(message: Message, values: Mapping[str, Any], path: str, depth: int) -> Iterator[Problem]:
    given: dict[str, str] = {}
    for name, value in values.items():
        where, field = path + name[:SHOWN_MAX], find_field(message.DESCRIPTOR, name)
        if field is None:
            yield Problem(where, _unknown(message.DESCRIPTOR, name))
        elif field.name in given:
            yield Problem(where, f"is the same as {given[field.name]}: give one of them")
        else:
            given[field.name] = name
            if value is not None:
                yield from _set(message, field, value, where, depth)


def _set(message: Message, field: FieldDescriptor, value: Any, where: str, depth: int) -> Iterator[Problem]:
    if field.message_type is None or is_map(field):
        try:
            json_format.ParseDict({field.json_name: value}, message)
        except json_format.ParseError:
            yield Problem(where, describe(field))
        return
    places = [(where, value)]
    if field.is_repeated:
        if not isinstance(value, list):
            yield Problem(where, describe(field))
            return
        places = [(f"{where}[{index}]", item) for index, item in enumerate(value)]
    for place, item in places:
        if not isinstance(item, dict) or not depth:
            yield Problem(place, "must be an object" if depth else "is nested too deep")
            continue
        held = getattr(message, field.name)
        inner = held.add() if field.is_repeated else held
        inner.SetInParent()
        yield from _fill(inner, item, f"{place}.", depth - 1)


def _read_text(field: FieldDescriptor, text: str) -> Any:
    if field.enum_type is not None:
        known = {value.name: value.name for value in field.enum_type.values}
        prefix = _common_prefix(list(known))
        known |= {name.removeprefix(prefix): name for name in known}
        if text.upper().replace("-", "_") not in known:
            words = ", ".join(name.removeprefix(prefix).lower() for name in known.values())
            raise ValueError(f"must be one of {', '.join(dict.fromkeys(words.split(', ')))}")
        return known[text.upper().replace("-", "_")]
    if field.cpp_type == field.CPPTYPE_BOOL:
        if text.lower() not in ("true", "false"):
            raise ValueError(describe(field) if not field.is_repeated else _describe_one(field))
        return text.lower() == "true"
    return text


def _common_prefix(names: Sequence[str]) -> str:
    """Return what all names of an enum begin with, to the last `_`."""
    first, last = min(names), max(names)
    same = next((index for index, char in enumerate(first) if last[index : index + 1] != char), len(first))
    return first[: first.rfind("_", 0, same) + 1]


def _unknown(descriptor: Any, name: str) -> str:
    near = difflib.get_close_matches(name, [field.json_name for field in descriptor.fields], n=1, cutoff=0.6)
    return f"is no field of {descriptor.name}" + (f"; did you mean {near[0]}?" if near else "")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{_short(twice)!r} is given twice in one object")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON value")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"
