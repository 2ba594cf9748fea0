"""Translate a failed call into the typed error that the coordinator meant.

A coordinator packs its error as an ErrorDetail into google.rpc.Status (`grpc-status-details-bin`). Without one,
the failure is the transport's, or another program answered: the status alone decides then.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from cloudless.cli.failover import Failure
from cloudless.errors import (
    OUTCOMES,
    CloudlessError,
    CommitUncertain,
    NoQuorum,
    Problem,
    StoreTimeout,
    Unavailable,
    error_with_code,
)
from cloudless.rpc.v1.common_pb2 import ErrorDetail

_DETAILS_KEY = "grpc-status-details-bin"
_LOOK = "`cloudless cluster status` says what is wrong"

_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
"""Transport failures that another coordinator, or a moment, may mend."""

_BARE_HINTS = {
    grpc.StatusCode.UNIMPLEMENTED: "is it a coordinator, and of this version?",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "split the request: a manifest may have 1 MiB, a whole request twice that",
}


def to_failure(error: Any, address: str, writes: bool) -> Failure:
    """Return what a grpc error (blocking or asyncio) of a call to `address` means."""
    detail = _find_detail(error)
    if detail is not None:
        typed = to_error(detail)
        return Failure(typed, detail.retryable, answered=True, uncertain=isinstance(typed, CommitUncertain))
    code = error.code()
    return Failure(
        _bare_error(code, error.details() or "", address, writes),
        again=code in _PASSING,
        answered=False,
        # A refused connection carried no request; whatever broke later may have.
        uncertain=code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED),
    )


def to_error(detail: ErrorDetail) -> CloudlessError:
    """Return the error a coordinator described; one of a newer version comes as the root class."""
    error_class = error_with_code(detail.code)
    # Subclasses have constructors of their own; what travels is the same for all of them.
    error = error_class.__new__(error_class)
    hint = detail.hint or (_LOOK if error_class in (Unavailable, NoQuorum, StoreTimeout) else "")
    CloudlessError.__init__(error, detail.message or detail.code, hint=hint)
    if detail.problems:
        error.problems = tuple(Problem(p.field, p.message) for p in detail.problems)  # type: ignore[attr-defined]
    return error


def _find_detail(error: Any) -> ErrorDetail | None:
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS_KEY:
            continue
        status, detail = Status(), ErrorDetail()
        try:
            status.ParseFromString(value)
            if any(packed.Unpack(detail) for packed in status.details):
                return detail
        except DecodeError:
            return None
    return None


def _bare_error(code: grpc.StatusCode, details: str, address: str, writes: bool) -> CloudlessError:
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"{address} is not reachable ({_first_line(details)})")
    if code in _PASSING and writes:
        return CommitUncertain(
            f"{address} gave no answer in time: the write may have happened, or may still",
            hint="look before you repeat it",
        )
    if code in _PASSING:
        return StoreTimeout(f"{address} gave no answer in time", hint=_LOOK)
    error_class = next((cls for cls, seen in OUTCOMES.items() if seen.grpc_status == code.name), CloudlessError)
    return _make(error_class, f"{address}: {details or code.name}", _BARE_HINTS.get(code, ""))


def _make(error_class: type[CloudlessError], message: str, hint: str) -> CloudlessError:
    error = error_class.__new__(error_class)
    CloudlessError.__init__(error, message, hint=hint)
    return error


def _first_line(details: str) -> str:
    # grpc names the socket error at the very end of a long sentence.
    return details.splitlines()[0].rpartition("; ")[2].rpartition(": ")[2][:120] if details else "no connection"
