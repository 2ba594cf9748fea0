"""A coordinator for tests of the command line: a real gRPC server whose answers a test sets call by call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from cloudless.cli import methods
from cloudless.cli.methods import Method
from cloudless.errors import CloudlessError, outcome_of
from cloudless.rpc.v1.common_pb2 import ErrorDetail, Problem

METHODS = {value.path: value for value in vars(methods).values() if isinstance(value, Method)}
STREAMS = {
    methods.WATCH.path, methods.READ_LOGS.path, methods.SAVE_BACKUP.path, methods.FETCH_BACKUP.path,
    methods.WATCH_ENDPOINTS.path,
}  # fmt: skip
Answer = Callable[[Any], Any]


class FakeCoordinator(grpc.GenericRpcHandler):
    """Serves on a port of its own. `requests` keeps every request; a method without an answer is UNIMPLEMENTED."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Any] = []
        self._answers: dict[str, Answer] = {}
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answer(self, method: Method[Any, Any], answer: Answer | Any) -> None:
        """Answer `method` with a message, with what a function of the request returns, or with an error to raise."""
        self._answers[method.path] = answer if callable(answer) else lambda _: answer

    def stop(self) -> None:
        self._server.stop(0).wait()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method, answer = METHODS.get(handler_call_details.method), self._answers.get(handler_call_details.method)
        if method is None or answer is None:
            return None
        coders = {
            "request_deserializer": method.request.FromString,
            "response_serializer": method.response.SerializeToString,
        }
        if method.path in STREAMS:
            return grpc.unary_stream_rpc_method_handler(lambda r, c: self._stream(answer, r, c), **coders)
        return grpc.unary_unary_rpc_method_handler(lambda r, c: self._call(answer, r, c), **coders)

    def _call(self, answer: Answer, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        try:
            value = answer(request)
            if isinstance(value, CloudlessError):
                raise value
            return value
        except CloudlessError as error:
            context.abort_with_status(to_status(error))

    def _stream(self, answer: Answer, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.requests.append(request)
        for value in answer(request):
            if isinstance(value, CloudlessError):
                context.abort_with_status(to_status(value))
            yield value


def to_status(error: CloudlessError) -> Any:
    """Return the gRPC status a coordinator sends for `error`."""
    detail = ErrorDetail(
        code=error.code,
        message=error.message,
        hint=error.hint,
        retryable=error.retryable,
        problems=[Problem(field=p.field, message=p.message) for p in getattr(error, "problems", ())],
    )
    packed = AnyMessage()
    packed.Pack(detail)
    code = grpc.StatusCode[outcome_of(type(error)).grpc_status]
    return rpc_status.to_status(Status(code=code.value[0], message=error.message, details=[packed]))
