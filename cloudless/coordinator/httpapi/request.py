"""Make a method's request out of what came over HTTP: path, query, headers and body, with every fault named.

::

    path           the fields in `{}`
    query          fields, in camelCase or as in the proto; a list by repeating, a map as `key=value`; and how fresh a
                   read must be: consistency=linearizable|bounded|stale, maxStalenessS, minRevision
    Idempotency-Key, If-Match, Last-Event-ID, Request-Timeout    options.requestId, options.ifRevision, where a watch
                   goes on, seconds the call may take
    body           a JSON object with the other fields; or the one field that is text as a whole, such as a manifest

What means nothing here is refused, not ignored: a misspelt parameter would quietly do something else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from cloudless.adapters.http.exchange import Asked
from cloudless.coordinator.httpapi.table import Route
from cloudless.errors import InvalidSpec, Problem
from cloudless.rpc.json_request import fill, find_field, is_map, load_object, read_texts

READ, OPTIONS = "read", "options"
IDEMPOTENCY_KEY, IF_MATCH = "idempotency-key", "if-match"
LAST_EVENT_ID, REQUEST_TIMEOUT = "last-event-id", "request-timeout"
PARAMETERS_MAX = 500
TIMEOUT_MIN_S, TIMEOUT_MAX_S = 0.05, 600.0
SMALL_BYTES_MAX = 32 << 10
"""A larger body is read in a thread, one at a time: a megabyte of JSON may take a second."""
# Beside their own, what says nothing: none, bytes, and what curl -d says of everything.
_TYPES_OF_JSON = {"", "application/json", "application/octet-stream", "application/x-www-form-urlencoded"}
_TYPES_OF_TEXT = {
    *_TYPES_OF_JSON, "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain",
}  # fmt: skip
_REVISION = re.compile(r'(?:W/)?"?([0-9]{1,18})"?')


async def build_request(route: Route, variables: Mapping[str, str], asked: Asked, reading: asyncio.Lock) -> Message:
    """Return the request that `asked` stands for. Who reads a large body holds `reading`.

    Raises InvalidSpec, TooLarge.
    """
    message: Message = message_factory.GetMessageClass(route.method.input_type)()
    values = dict(_values_around_body(route, variables, asked))
    if route.line.raw:
        values[route.line.raw] = await _read_text(asked)
    elif route.in_query:
        _require_no_body(asked)
    else:
        _require_type(asked, _TYPES_OF_JSON)
        body = await asked.read()
        if len(body) > SMALL_BYTES_MAX:
            async with reading:
                await asyncio.to_thread(_fill_from_body, message, route, body)
        else:
            _fill_from_body(message, route, body)
    fill(message, {**route.line.fixed, **values, **_options(route, asked, message)})
    return message


def read_timeout(asked: Asked) -> float | None:
    """Return the seconds that the caller gives the call, None if it does not say. Raises InvalidSpec."""
    text = asked.headers.get(REQUEST_TIMEOUT)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,4}(\.\d{1,6})?", text) or not TIMEOUT_MIN_S <= float(text) <= TIMEOUT_MAX_S:
        raise InvalidSpec([Problem("Request-Timeout", f"must be seconds from {TIMEOUT_MIN_S:g} to {TIMEOUT_MAX_S:g}")])
    return float(text)


def query_fields(route: Route) -> dict[str, FieldDescriptor]:
    """Return the fields that may be in the query, by their JSON names; those of `read` included."""
    if not route.in_query:
        return {}
    said = {*route.variables, *route.line.fixed, route.line.raw, READ, OPTIONS}
    shown = [field for field in route.method.input_type.fields if field.name not in said and _fits_in_query(field)]
    return {field.json_name: field for field in (*shown, *_read_options(route.method.input_type))}


def body_fields(route: Route) -> list[FieldDescriptor]:
    """Return the fields that may be in a JSON body."""
    if route.in_query:
        return []
    said = {*route.variables, *route.line.fixed}
    return [field for field in route.method.input_type.fields if field.name not in said]


def _read_options(request: Descriptor) -> list[FieldDescriptor]:
    read: Any = request.fields_by_name.get(READ)
    return list(read.message_type.fields) if read is not None else []


def _fits_in_query(field: FieldDescriptor) -> bool:
    return field.message_type is None or is_map(field)


def _values_around_body(route: Route, variables: Mapping[str, str], asked: Asked) -> Iterator[tuple[str, Any]]:
    """Yield the values that path, query and Last-Event-ID give. Raises InvalidSpec with all that is wrong in them."""
    problems: list[Problem] = []
    known = query_fields(route)
    read_options = {field.full_name for field in _read_options(route.method.input_type)}
    texts = {name: [text] for name, text in variables.items()}
    fields = {name: route.method.input_type.fields_by_name[name] for name in variables}
    for name, text in _parse_query(asked.query):
        field = known.get(name) or next((one for one in known.values() if one.name == name), None)
        if field is None:
            problems.append(Problem(name[:60], _no_parameter(route, name)))
            continue
        fields[field.json_name] = field
        texts.setdefault(field.json_name, []).append(text)
    read: dict[str, Any] = {}
    for name, field in fields.items():
        try:
            value = read_texts(field, texts[name])
        except ValueError as error:
            problems.append(Problem(name, str(error)))
            continue
        if field.full_name in read_options:
            read[field.json_name] = value
        elif field.json_name != find_resume(route):
            yield field.json_name, value
    if problems:
        raise InvalidSpec(problems)
    yield from _resume(route, asked, texts)
    if read:
        yield READ, read


def find_resume(route: Route) -> str:
    """Return the JSON name of the field that says where a watch goes on, "" if it has none."""
    name = route.line.resume[0]
    return str(route.method.input_type.fields_by_name[name].json_name) if name else ""


def _resume(route: Route, asked: Asked, texts: Mapping[str, list[str]]) -> Iterator[tuple[str, Any]]:
    """Yield where a watch goes on: after the last revision that was told, else from where the query says."""
    name, last = find_resume(route), asked.headers.get(LAST_EVENT_ID, "")
    if name and last:
        if not re.fullmatch(r"[0-9]{1,18}", last):
            raise InvalidSpec([Problem("Last-Event-ID", "must be the id of an event of this watch")])
        yield name, int(last) + route.line.resume[1]
    elif name in texts:
        yield name, texts[name][0]


def _no_parameter(route: Route, name: str) -> str:
    if not route.in_query and find_field(route.method.input_type, name) is not None:
        return "is not taken in the query: give it in the body"
    if name in (*route.variables, *route.line.fixed):
        return "is said by the path"
    return f"is no parameter of {route.verb} {route.path}"


def _parse_query(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except (ValueError, UnicodeDecodeError) as error:
        text = f"must be at most {PARAMETERS_MAX} parameters in UTF-8"
        raise InvalidSpec([Problem("query", text)]) from error


def _fill_from_body(message: Message, route: Route, body: bytes) -> None:
    values = load_object(body)
    said = (*route.variables, *route.line.fixed)
    problems = []
    for name in values:
        field = find_field(message.DESCRIPTOR, name)
        if field is not None and field.name in said:
            problems.append(Problem(name, "is said by the path"))
    if problems:
        raise InvalidSpec(problems)
    fill(message, values)


async def _read_text(asked: Asked) -> str:
    _require_type(asked, _TYPES_OF_TEXT)
    try:
        return (await asked.read()).decode()
    except UnicodeDecodeError as error:
        raise InvalidSpec([Problem("body", f"is not UTF-8 at byte {error.start}")]) from error


def _require_type(asked: Asked, known: set[str]) -> None:
    said = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said not in known and not said.endswith("+json"):
        wanted = ", ".join(sorted(known - {""}))
        raise InvalidSpec([Problem("Content-Type", f"must be one of {wanted}, not {said[:60]}")])


def _require_no_body(asked: Asked) -> None:
    if asked.headers.get("content-length", "0").strip() not in ("", "0") or "transfer-encoding" in asked.headers:
        raise InvalidSpec([Problem("body", "is not taken here: give fields in the query")])


def _options(route: Route, asked: Asked, message: Message) -> dict[str, Any]:
    """Return `options` as the headers say them, beside those of the body, which they must not contradict."""
    request_id, match = asked.headers.get(IDEMPOTENCY_KEY, "").strip('"'), asked.headers.get(IF_MATCH, "")
    if match and not route.conditional:
        raise InvalidSpec([Problem("If-Match", f"is not taken by {route.verb} {route.path}")])
    if not route.takes_id:
        if request_id and route.verb not in ("GET", "HEAD"):
            raise InvalidSpec([Problem("Idempotency-Key", f"is not taken by {route.verb} {route.path}")])
        return {}
    held: Any = getattr(message, OPTIONS)
    found = _REVISION.fullmatch(match) if match else None
    if match and found is None:
        raise InvalidSpec([Problem("If-Match", 'must be the revision of the object, as in its ETag: "123"')])
    revision = int(found[1]) if found else held.if_revision
    if (request_id and held.request_id not in ("", request_id)) or held.if_revision not in (0, revision):
        raise InvalidSpec([Problem(OPTIONS, "says something else than Idempotency-Key or If-Match")])
    said = {"requestId": request_id, "ifRevision": revision}
    return {OPTIONS: {name: value for name, value in said.items() if value}} if any(said.values()) else {}
