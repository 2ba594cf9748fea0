"""What a log line is about, apart from its words: fields bound to the work that is being done.

Bound where work begins (a call at its door, a term in its scope) and taken by every line written until it ends, also in
tasks that it starts. Binding is one small dictionary in a context variable; nothing is formatted before a line is
written. What only a line itself knows it says by a named argument: `logger.info("node {node} is back", node=id)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar

FIELDS = (
    "request_id",
    "trace_id",
    "span_id",
    "method",
    "caller",
    "term",
    "revision",
    "node",
    "namespace",
    "workload",
    "task",
    "member",
    "source",
    "repeated",
)
"""All that a line may have besides time, level, message, process, node_id and exception, in the order it is written."""

_NOTHING: Mapping[str, object] = {}
_BOUND: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=_NOTHING)
_LOOKED_UP: dict[str, Callable[[], object]] = {}


def bind(**fields: object) -> None:
    """Give every line of this task, and of those it starts from now on, these fields."""
    _BOUND.set({**_BOUND.get(), **fields})


def look_up(name: str, find: Callable[[], object]) -> None:
    """Have `find` asked for a field when a line is written: for what is kept somewhere already."""
    _LOOKED_UP[name] = find


def fields_of(said: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of a line: what it says itself before what is bound before what is looked up; no empty ones."""
    bound = _BOUND.get()
    found: dict[str, object] = {}
    for name in FIELDS:
        value = said.get(name)
        if value is None:
            value = bound.get(name)
        if value is None and name in _LOOKED_UP:
            value = _LOOKED_UP[name]()
        if value is not None and value != "":
            found[name] = value
    return found
