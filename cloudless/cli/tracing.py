"""A command as the beginning of a trace, if the environment asks for it (docs/tracing.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from loguru import logger

from cloudless.observability import tracing
from cloudless.observability.telling import trace
from cloudless.settings import read_trace_settings

OUTSIDE = "TRACEPARENT"
"""Where programs that start others leave the trace that these belong to."""
FLUSH_TIMEOUT_S = 1.0
_SERVERS = frozenset({"coordinator", "agent", "completion"})


def begin_trace(command: str, environ: Mapping[str, str] | None = None) -> tracing.Span:
    """Begin the trace of a command (`workload apply`). Raises BadSettings.

    Servers trace by their own settings.
    """
    environ = os.environ if environ is None else environ
    if command.partition(" ")[0] in _SERVERS:
        return tracing.NO_SPAN
    endpoint, ratio = read_trace_settings(environ)
    _be_quiet()
    trace("cli", str(os.getpid()), endpoint, ratio)
    return tracing.span(f"cloudless {command}".rstrip(), parent=environ.get(OUTSIDE, ""))


def end_trace() -> None:
    """Send what there is to send; that takes no longer than a moment, even if nobody takes it."""
    tracing.stop_tracing(FLUSH_TIMEOUT_S)


def _be_quiet() -> None:
    """The command's own words are the only ones a person wants to read."""
    logger.disable("cloudless.observability")
