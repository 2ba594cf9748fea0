"""Typed errors over gRPC: a `google.rpc.Status` that carries an `ErrorDetail`, both ways.

A status travels in the trailing metadata, of which gRPC takes 8 KiB: an error may quote what it refuses,
and name a thousand problems, so both are cut to what is sure to arrive.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from cloudless.errors import (
    CloudlessError,
    CommitUncertain,
    Compacted,
    InvalidSpec,
    Problem,
    Unavailable,
    error_with_code,
    outcome_of,
)
from cloudless.rpc.v1 import common_pb2 as pb

# The status text is sent twice, once with each byte that is not ASCII as three; the detail once, as base64.
TEXT_BYTES_MAX = 400
MESSAGE_BYTES_MAX = 800
PROBLEM_BYTES_MAX = 400
PROBLEMS_BYTES_MAX = 2_000


def to_status(error: CloudlessError, coordinator_id: str) -> grpc.Status:
    """Return the status to abort a call with."""
    detail = pb.ErrorDetail(
        code=error.code,
        message=_cut(error.message, MESSAGE_BYTES_MAX),
        hint=_cut(error.hint, TEXT_BYTES_MAX),
        retryable=error.retryable,
        problems=_cut_problems(getattr(error, "problems", ())),
        coordinator_id=coordinator_id,
    )
    packed = any_pb2.Any()
    packed.Pack(detail)
    code = code_pb2.Code.Value(outcome_of(type(error)).grpc_status)
    text = _cut(str(error), TEXT_BYTES_MAX)
    status: grpc.Status = rpc_status.to_status(status_pb2.Status(code=code, message=text, details=[packed]))
    return status


def _cut(text: str, bytes_max: int) -> str:
    """Return what fits of `text`, as what UTF-8 can hold (YAML can spell half a surrogate pair)."""
    raw = text[: bytes_max + 1].encode("utf-8", "replace")
    if len(raw) <= bytes_max:
        return raw.decode()
    return raw[: bytes_max - 3].decode("utf-8", "ignore") + "…"


def _cut_problems(problems: Sequence[Problem]) -> list[pb.Problem]:
    """Return the first problems, as many as fit; a last one says how many are left out."""
    shown: list[pb.Problem] = []
    size = 0
    for problem in problems:
        field, message = _cut(problem.field, PROBLEM_BYTES_MAX), _cut(problem.message, PROBLEM_BYTES_MAX)
        size += len(field.encode()) + len(message.encode()) + 8
        if size > PROBLEMS_BYTES_MAX:
            return [*shown, pb.Problem(message=f"and {len(problems) - len(shown)} more")]
        shown.append(pb.Problem(field=field, message=message))
    return shown


def from_rpc_error(error: grpc.RpcError) -> CloudlessError:
    """Return the typed error a call failed with; errors of gRPC itself become Unavailable or CommitUncertain."""
    detail = find_detail(error)
    if detail is not None:
        return _from_detail(detail)
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(
            "it cannot be reached" if "failed to connect" in text.lower() else text or "it cannot be reached"
        )
    if code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return CommitUncertain(text or "no answer in time")
    return CloudlessError(f"{code.name.lower().replace('_', ' ')}: {text}")


def find_detail(error: grpc.RpcError) -> pb.ErrorDetail | None:
    """Return the ErrorDetail of a failed call, None if it carries none."""
    try:
        status = rpc_status.from_call(error)
    except (ValueError, AttributeError):
        return None
    for packed in status.details if status is not None else ():
        detail = pb.ErrorDetail()
        if packed.Is(pb.ErrorDetail.DESCRIPTOR) and packed.Unpack(detail):
            return detail
    return None


def _from_detail(detail: pb.ErrorDetail) -> CloudlessError:
    kind = error_with_code(detail.code)
    if issubclass(kind, InvalidSpec):
        return kind([Problem(p.field, p.message) for p in detail.problems], hint=detail.hint)
    if issubclass(kind, Compacted):
        return CloudlessError(detail.message, hint=detail.hint)
    try:
        return kind(detail.message, hint=detail.hint)
    except TypeError:
        return CloudlessError(detail.message, hint=detail.hint)
