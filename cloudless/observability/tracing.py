"""Traces: the seam. Off, a span is one function call that returns the same object each time; nothing else happens.

`start_tracing` (in `otlp`, imported only when tracing is on) puts a tracer behind it. A trace goes on in another
process by its context in W3C form: sent along with a call, or carried in the record that the work follows from.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from enum import Enum
from types import TracebackType
from typing import Protocol

Value = str | int | float | bool
Attributes = Mapping[str, Value]
NOTHING: Attributes = {}
TRACEPARENT_KEY = "traceparent"
NEW = "new"
"""As the parent: a trace of its own, whatever is current."""
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


class Kind(Enum):
    """What a span stands for: work inside of a process, a call that it serves, a call that it makes."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class Span:
    """A piece of work with a beginning and an end. This one is of no trace: all it is told is dropped.

    As a context it is the current one of the task, and an error that leaves it is noted. `traceparent` is what makes
    work elsewhere a part of it, "" if it is not traced.
    """

    __slots__ = ()

    @property
    def traceparent(self) -> str:
        return ""

    def set(self, attributes: Attributes) -> None:
        """Note facts about the work."""

    def end(self, end_ns: int | None = None) -> None:
        """End it, now or at a time of the wall clock; for one that is not used as a context."""

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Tracer(Protocol):
    """What stands behind the seam while tracing is on."""

    @property
    def dropped_total(self) -> int: ...

    @property
    def exported_total(self) -> int: ...

    def start(
        self,
        name: str,
        *,
        parent: str = "",
        kind: Kind = Kind.INTERNAL,
        start_ns: int | None = None,
        always: bool = False,
        attributes: Attributes,
    ) -> Span: ...

    def current_traceparent(self) -> str: ...

    def shutdown(self, timeout_s: float) -> None: ...


NO_SPAN = Span()
_tracer: Tracer | None = None


def set_tracer(tracer: Tracer | None) -> None:
    """Put a tracer behind the seam, or None: off."""
    global _tracer
    _tracer = tracer


def is_on() -> bool:
    return _tracer is not None


def now_ns() -> int | None:
    """Return the wall clock's time, for a span that is begun later than its work; None while tracing is off."""
    return time.time_ns() if _tracer is not None else None


def span(
    name: str,
    attributes: Attributes = NOTHING,
    *,
    parent: str = "",
    kind: Kind = Kind.INTERNAL,
    start_ns: int | None = None,
    always: bool = False,
) -> Span:
    """Begin a span: of the trace that `parent` is of, else (or if it is spoilt) of the current one, else of a new one.

    A new trace is recorded at the configured ratio, `always` if it is too rare and too telling to be missed.
    `start_ns` is when it began by the wall clock, if that was earlier.
    """
    if _tracer is None:
        return NO_SPAN
    return _tracer.start(name, parent=parent, kind=kind, start_ns=start_ns, always=always, attributes=attributes)


def call_span(system: str, name: str, traceparent: str) -> Span:
    """Begin the span of a call of `package.Service/Method` that is served: of its caller's trace, if that names one."""
    service, _, method = name.rpartition("/")
    attributes = {"rpc.system": system, "rpc.service": service, "rpc.method": method}
    return span(method, attributes, parent=traceparent, kind=Kind.SERVER)


def going_on(traceparent: str, name: str, attributes: Attributes = NOTHING, *, start_ns: int | None = None) -> Span:
    """Begin a span of a trace that came along with a record; without one, or with a spoilt one, nothing is traced."""
    if _tracer is None or not traceparent or not is_sampled(traceparent):
        return NO_SPAN
    return _tracer.start(name, parent=traceparent, start_ns=start_ns, attributes=attributes)


def child(name: str, attributes: Attributes = NOTHING) -> Span:
    """Begin a span of the current trace; outside of any nothing is traced."""
    if _tracer is None or not (parent := _tracer.current_traceparent()) or not is_sampled(parent):
        return NO_SPAN
    return _tracer.start(name, attributes=attributes)


def current_traceparent() -> str:
    """Return the context of the current span for a record to carry, "" if it is not recorded."""
    if _tracer is None:
        return ""
    context = _tracer.current_traceparent()
    return context if is_sampled(context) else ""


def metadata() -> tuple[tuple[str, str], ...] | None:
    """Return what a call takes along for whoever serves it to go on with this trace, or with not recording it."""
    if _tracer is None:
        return None
    context = _tracer.current_traceparent()
    return ((TRACEPARENT_KEY, context),) if context else None


def current_ids() -> tuple[str, str]:
    """Return the current trace's and span's id for a log line, empty outside of any."""
    if _tracer is None or not (context := _tracer.current_traceparent()):
        return "", ""
    return context[3:35], context[36:52]


def trace_id_of(traceparent: str) -> str:
    """Return the id of the trace that a record goes on with, "" if it carries none."""
    return traceparent[3:35] if is_valid(traceparent) else ""


def is_valid(traceparent: str) -> bool:
    """Return whether a text is a trace context as W3C has it."""
    return len(traceparent) == 55 and _TRACEPARENT.fullmatch(traceparent) is not None


def is_sampled(traceparent: str) -> bool:
    """Return whether it is, and of a trace that is recorded."""
    return is_valid(traceparent) and bool(int(traceparent[-2:], 16) & 1)


def dropped_total() -> int:
    """Return how many spans of this process could not be sent so far."""
    return _tracer.dropped_total if _tracer is not None else 0


def stop_tracing(timeout_s: float = 1.0) -> None:
    """Send what is left, for `timeout_s` at most, and trace no more."""
    tracer = _tracer
    set_tracer(None)
    if tracer is not None:
        tracer.shutdown(timeout_s)
