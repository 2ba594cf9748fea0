"""Read the engine's account of a container: whose attempt it is, whether it lives, how it ended."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cloudless.adapters.docker.request import LABEL_AGENT, LABEL_ATTEMPT, LABEL_PORTS, LABEL_TASK, MIB
from cloudless.core.model import Instance
from cloudless.core.usage import UNKNOWN, Usage

SIGNAL_BASE = 128
SIGNAL_HIGHEST = 31


@dataclass(frozen=True, slots=True)
class Container:
    """An inspected container. `begun` is False as long as nothing of it ever ran. `owner` is the agent's id."""

    id: str
    owner: str
    begun: bool
    stop_signal: str
    instance: Instance


def read_container(document: Mapping[str, Any], now_ms: int) -> Container | None:
    """Return the container, or None if its labels are not those of an attempt.

    The engine tells a process that was ended by signal N and one that exited with 128 + N alike; both are said to
    have been ended by the signal. Its times are of the wall clock.
    """
    config, state = document.get("Config") or {}, document.get("State") or {}
    labels = config.get("Labels") or {}
    try:
        task_id, attempt = labels[LABEL_TASK], int(labels[LABEL_ATTEMPT])
    except (KeyError, ValueError):
        return None
    running = bool(state.get("Running"))
    started_ms, finished_ms = _read_ms(state.get("StartedAt")), _read_ms(state.get("FinishedAt"))
    end = {} if running else _read_end(document, state, finished_ms)
    until_ms = now_ms if running else finished_ms
    instance = Instance(
        task_id=task_id,
        attempt=attempt,
        running=running,
        pid=int(state.get("Pid") or 0) if running else 0,
        started_at_ms=started_ms,
        ran_s=max(0, until_ms - started_ms) / 1000 if started_ms else 0.0,
        ports=_read_ports(labels.get(LABEL_PORTS, "")),
        **end,
    )
    return Container(
        id=str(document.get("Id", "")),
        owner=labels.get(LABEL_AGENT, ""),
        begun=running or started_ms > 0,
        stop_signal=config.get("StopSignal") or "SIGTERM",
        instance=instance,
    )


def _read_end(document: Mapping[str, Any], state: Mapping[str, Any], finished_ms: int) -> dict[str, Any]:
    code = int(state.get("ExitCode") or 0)
    number = code - SIGNAL_BASE if SIGNAL_BASE < code <= SIGNAL_BASE + SIGNAL_HIGHEST else 0
    return {
        "exit_code": -1 if number else code,
        "signal": number,
        "finished_at_ms": finished_ms,
        "message": _describe(document, state, number),
    }


def _describe(document: Mapping[str, Any], state: Mapping[str, Any], number: int) -> str:
    """Return what is unusual about the end, "" if nothing is."""
    if not state.get("OOMKilled"):
        return str(state.get("Error") or "")
    limit_mb = int((document.get("HostConfig") or {}).get("Memory") or 0) // MIB
    limit = f" (limit {limit_mb} MB)" if limit_mb else ""
    if number == signal.SIGKILL:
        return f"killed: out of memory{limit}"
    return f"ended after a process of it was killed: out of memory{limit}"


def read_usage(document: Mapping[str, Any]) -> Usage:
    """Return what a container uses by the engine's account; files in its cache that could go at once do not count."""
    cpu_ns = ((document.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage")
    memory = document.get("memory_stats") or {}
    used, more = memory.get("usage"), memory.get("stats") or {}
    idle = more.get("total_inactive_file", more.get("inactive_file", 0))
    return Usage(
        UNKNOWN if cpu_ns is None else int(cpu_ns) / 1e9,
        UNKNOWN if used is None else max(0, int(used) - int(idle)),
    )


def _read_ports(text: str) -> dict[str, int]:
    try:
        return {str(name): int(number) for name, number in json.loads(text or "{}").items()}
    except (ValueError, AttributeError, TypeError):
        return {}


def _read_ms(text: object) -> int:
    """Return milliseconds since 1970 of the engine's time; 0 for its "never" and for what is no time."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return 0
    return max(0, round(moment.timestamp() * 1000)) if moment.tzinfo and moment.year > 1970 else 0
