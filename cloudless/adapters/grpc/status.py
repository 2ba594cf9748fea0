"""Typed errors over gRPC: a `google.rpc.Status` that carries an `ErrorDetail`, both ways."""

from __future__ import annotations

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


def to_status(error: CloudlessError, coordinator_id: str) -> grpc.Status:
    """Return the status to abort a call with."""
    detail = pb.ErrorDetail(
        code=error.code,
        message=error.message,
        hint=error.hint,
        retryable=error.retryable,
        problems=[pb.Problem(field=p.field, message=p.message) for p in getattr(error, "problems", ())],
        coordinator_id=coordinator_id,
    )
    packed = any_pb2.Any()
    packed.Pack(detail)
    code = code_pb2.Code.Value(outcome_of(type(error)).grpc_status)
    status: grpc.Status = rpc_status.to_status(status_pb2.Status(code=code, message=str(error), details=[packed]))
    return status


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
