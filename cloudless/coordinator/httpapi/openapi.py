"""The OpenAPI document of this API, made from the same routes and descriptors that answer.

`python -m cloudless.coordinator.httpapi.openapi` prints it; it is kept as docs/openapi.json, and every coordinator
publishes its own at /openapi.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cloudless.coordinator.health import MAX_STALENESS, PAGES
from cloudless.coordinator.httpapi.problems import PROBLEM_JSON
from cloudless.coordinator.httpapi.request import (
    TIMEOUT_MAX_S,
    TIMEOUT_MIN_S,
    body_fields,
    find_resume,
    query_fields,
)
from cloudless.coordinator.httpapi.schemas import (
    Schema,
    build_schemas,
    comment_on,
    name_of,
    of_field,
    of_parameter,
    refer,
)
from cloudless.coordinator.httpapi.table import BASE, Route, build_routes
from cloudless.coordinator.httpapi.telling import EVENT_STREAM

TITLE = "cloudless"
PROBLEM: Schema = {
    "type": "object",
    "description": "Why a call failed (RFC 9457).",
    "properties": {
        "type": {"type": "string", "description": "`urn:cloudless:error:` and the code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What went wrong, in words."},
        "code": {"type": "string", "description": "A stable word, such as `invalid-spec`."},
        "hint": {"type": "string", "description": "What to do about it."},
        "retryable": {
            "type": "boolean",
            "description": "The same request may succeed later; a change under the same Idempotency-Key.",
        },
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                "required": ["field", "message"],
            },
        },
        "coordinatorId": {"type": "string"},
        "revision": {"type": "string", "description": "Of the state it was told from."},
    },
    "required": ["type", "title", "status", "detail", "code", "hint", "retryable", "problems", "coordinatorId"],
}
_RESPONSES = {"Problem": {"description": "Refused, or failed.", "content": {PROBLEM_JSON: {
    "schema": {"$ref": "#/components/schemas/Problem"}}}}}  # fmt: skip
_HEADERS: dict[str, Schema] = {
    "Idempotency-Key": {
        "description": "The request's id: the same with the same content has one effect and one answer, however often "
        "and wherever it is sent, for ten minutes.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "If-Match": {
        "description": "Only if the object is still at this revision, as its ETag says.",
        "schema": {"type": "string", "pattern": '^"[0-9]{1,18}"$'},
    },
    "Request-Timeout": {
        "description": "Seconds the call may take; 10 if it is not said and the call waits for the store.",
        "schema": {"type": "number", "minimum": TIMEOUT_MIN_S, "maximum": TIMEOUT_MAX_S},
    },
    "Last-Event-ID": {
        "description": "Go on after the event of this id; browsers send it by themselves.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
    },
}


def build_document(routes: tuple[Route, ...]) -> str:
    """Return the document as JSON."""
    paths: dict[str, dict[str, Any]] = {path: {"get": _page(path, text)} for path, text in PAGES.items()}
    used: set[str] = set()
    for route in routes:
        paths.setdefault(_template(route), {})[route.verb.lower()] = _operation(route, used)
    schemas = build_schemas(
        [route.method.input_type for route in routes], [route.method.output_type for route in routes]
    )
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": "1",
            "description": "The services of a cloudless coordinator as JSON: the same calls, callers, rules and errors "
            "as over gRPC. Any coordinator may be asked. docs/http.md tells how to.",
        },
        "servers": [{"url": "/"}],
        "security": [{"certificate": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": PROBLEM},
            "responses": _RESPONSES,
            "securitySchemes": {
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate of this cluster (`cloudless login`). None is asked for where "
                    "the cluster runs without TLS.",
                }
            },
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _page(path: str, text: str) -> Schema:
    good: Schema = {"description": "It is so.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    if path == "/healthz":
        good["content"] = {"application/json": {"schema": {"type": "object"}}}
    asked: Schema = {"parameters": [_parameter(MAX_STALENESS, "query", {"type": "number", "minimum": 0})]}
    return {
        "operationId": path.strip("/"),
        "tags": ["pages"],
        "description": text,
        **(asked if path == "/read-only" else {}),
        "responses": {"200": good, "default": {**good, "description": "It is not so; the answer says why."}},
    }


def _template(route: Route) -> str:
    """Return the path with its variables named as everywhere in JSON."""
    fields = route.method.input_type.fields_by_name
    named = {f"{{{name}}}": f"{{{fields[name].json_name}}}" for name in route.variables}
    return "/" + "/".join(named.get(segment, segment) for segment in route.segments)


def _operation(route: Route, used: set[str]) -> Schema:
    service = route.method.containing_service
    found = {
        "operationId": _operation_id(route, used),
        "tags": [str(service.name).removesuffix("Service").lower()],
        **comment_on(f"{service.full_name}.{route.method.name}"),
        "x-method": route.name,
        "x-role": _role(route),
        "parameters": list(_parameters(route)),
        "responses": {"200": _answer(route), "default": {"$ref": "#/components/responses/Problem"}},
    }
    if route.rule.anyone:
        found["security"] = [{}, {"certificate": []}]
    if body := _body(route):
        found["requestBody"] = body
    return found


def _operation_id(route: Route, used: set[str]) -> str:
    """Return a name of its own: that of the method, and what tells this path from others of it."""
    words = [segment for segment in route.segments[1:] if not segment.startswith("{")]
    method = route.method.name[0].lower() + route.method.name[1:]
    if route.path == f"{BASE}/{route.line.method}":
        name = f"{route.method.containing_service.name}.{route.method.name}"
    elif route.line.fixed:
        name = method + words[-1].title()
    else:
        name = method if method not in used else method + words[0].title()
    used.add(name)
    return name


def _role(route: Route) -> str:
    """Return the least role that a person needs; "anyone" needs none, "coordinator" is no person."""
    if route.rule.anyone:
        return "anyone"
    return route.rule.people.value.lower() if route.rule.people is not None else "coordinator"


def _parameters(route: Route) -> Iterator[Schema]:
    fields: Mapping[str, Any] = route.method.input_type.fields_by_name
    for name in route.variables:
        yield _parameter(fields[name].json_name, "path", {"type": "string", "minLength": 1}, required=True)
    for name, field in query_fields(route).items():
        yield _parameter(name, "query", of_parameter(field)) | comment_on(field.full_name)
    headers = ["Request-Timeout"]
    headers += ["Last-Event-ID"] if find_resume(route) else []
    headers += ["Idempotency-Key"] if route.takes_id else []
    headers += ["If-Match"] if route.conditional else []
    for name in headers:
        yield {"name": name, "in": "header", "required": False, **_HEADERS[name]}


def _parameter(name: str, where: str, schema: Schema, *, required: bool = False) -> Schema:
    return {"name": name, "in": where, "required": required, "schema": schema}


def _body(route: Route) -> Schema:
    fields: Mapping[str, Any] = route.method.input_type.fields_by_name
    if route.line.raw:
        kinds = {"application/yaml": {"schema": {"type": "string"}}}
        text = comment_on(fields[route.line.raw].full_name)
        return {"required": True, **text, "content": kinds}
    shown = body_fields(route)
    if route.in_query or not shown:
        return {}
    schema: Schema = refer(route.method.input_type)
    if len(shown) < len(fields):
        properties = {field.json_name: of_field(field) for field in shown}
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"required": False, "content": {"application/json": {"schema": schema}}}


def _answer(route: Route) -> Schema:
    answer = route.method.output_type
    if route.streams:
        return {
            "description": f"Events; the data of each is a {name_of(answer)}. One of type `problem` is the last.",
            "content": {EVENT_STREAM: {"schema": {"type": "string"}, "x-data": refer(answer)}},
        }
    found: Schema = {"description": "Done.", "content": {"application/json": {"schema": refer(answer)}}}
    if route.line.revision:
        text = "The object's revision, for If-Match; absent while it has none."
        found["headers"] = {"ETag": {"description": text, "schema": {"type": "string"}}}
    return found


if __name__ == "__main__":
    from cloudless.coordinator.runtime import SERVICES

    print(build_document(build_routes(SERVICES)), end="")
