"""Memory of a mutation that was done, so that asking again returns its answer instead of doing it twice."""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.model.evolving import Evolving


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord(Evolving):
    """Stored in the same transaction as the mutation; the record's mod revision is the mutation's revision.

    `fingerprint` is a hash of the request's content: the same id with other content is refused.
    `answer` is what the first caller was told, as JSON.
    """

    id: str
    fingerprint: str
    answer: str = ""
    at_ms: int = 0
