"""Errors over HTTP: a problem document (RFC 9457), with the status that the table of outcomes gives the error."""

from __future__ import annotations

import json
from typing import Any

from cloudless.adapters.http.exchange import Answer
from cloudless.errors import CloudlessError, outcome_of

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_S = 1
PROBLEMS_MAX = 100
TEXT_LENGTH_MAX = 4_000


def describe_error(error: CloudlessError, coordinator_id: str, revision: int) -> dict[str, Any]:
    """Return an error as JSON values; `revision` is that of the state it was told from."""
    return {
        "type": f"urn:cloudless:error:{error.code}",
        "title": error.code.replace("-", " "),
        "status": outcome_of(type(error)).http_status,
        "detail": _sendable(error.message),
        "code": error.code,
        "hint": _sendable(error.hint),
        "retryable": error.retryable,
        "problems": [
            {"field": _sendable(problem.field), "message": _sendable(problem.message)}
            for problem in getattr(error, "problems", ())[:PROBLEMS_MAX]
        ],
        "coordinatorId": coordinator_id,
        "revision": str(revision),
    }


def to_problem(error: CloudlessError, coordinator_id: str, revision: int) -> Answer:
    """Return the answer to a call that failed."""
    document = describe_error(error, coordinator_id, revision)
    headers = {"Cache-Control": "no-store"} | ({"Retry-After": str(RETRY_AFTER_S)} if error.retryable else {})
    return Answer(document["status"], json.dumps(document, ensure_ascii=False) + "\n", PROBLEM_JSON, headers)


def _sendable(text: str) -> str:
    """Return a text that UTF-8 can hold: YAML can spell half a surrogate pair."""
    return text[:TEXT_LENGTH_MAX].encode("utf-8", "replace").decode()
