"""What happened, for people: who, what, when, why. Kept for a while under a lease, then gone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cloudless.core.model.evolving import Evolving


class Severity(Enum):
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord(Evolving):
    """One happening. `kind` is a stable CamelCase name; `subject` is `node/x`, `workload/ns/name`, `task/id`, …

    `actor` is who asked for it (`person/ann`); empty for what the cluster did by itself, or without TLS.
    """

    id: str
    at_ms: int
    kind: str
    subject: str
    message: str
    severity: Severity = Severity.INFO
    source: str = ""
    term: int = 0
    actor: str = ""
