"""What a process has to tell, set up in one call at its start: logs always, traces if its settings ask for them."""

from __future__ import annotations

from typing import Protocol

from cloudless.observability.logs import LogSettings, configure_logs
from cloudless.observability.secrets import keep_secret


class Telling(Protocol):
    """The settings that say how; those of coordinators and of agents have them."""

    @property
    def node_id(self) -> str: ...
    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> str: ...
    @property
    def otlp_endpoint(self) -> str: ...
    @property
    def trace_ratio(self) -> float: ...
    @property
    def join_token(self) -> str: ...


def begin_telling(process: str, settings: Telling) -> None:
    """Set logs and traces of this process up. `process` is coordinator or agent."""
    configure_logs(
        LogSettings(level=settings.log_level, form=settings.log_format, process=process, node_id=settings.node_id)
    )
    keep_secret(settings.join_token)
    trace(process, settings.node_id, settings.otlp_endpoint, settings.trace_ratio)


def trace(process: str, node_id: str, endpoint: str, ratio: float) -> None:
    """Trace this process, if there is somewhere to send traces to."""
    if endpoint:
        # Imported late: who does not trace pays nothing for it, not even the library's import.
        from cloudless.observability.otlp import TraceSettings, start_tracing

        start_tracing(TraceSettings(endpoint=endpoint, ratio=ratio, process=process, node_id=node_id))
