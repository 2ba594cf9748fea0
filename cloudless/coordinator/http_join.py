"""`POST /v1/join`: JoinRaftCluster for who has HTTP and no gRPC; the same door, handler and errors, as JSON.

The body is the request in protobuf's JSON form (`{"nodeId": "coordinator-4", "raftAddress": "10.0.0.4:3000", …}`). The
answer is the response in the same form, or `{"error": {"code", "message", "hint", "problems"}}` with the status of that
error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from cloudless.adapters.grpc.server import Door
from cloudless.adapters.http.server import Answer, Caller, Take
from cloudless.coordinator.guard import CERTIFICATE_KEY
from cloudless.core.identity.rules import PACKAGE
from cloudless.errors import CloudlessError, InvalidSpec, Problem, outcome_of
from cloudless.rpc.v1 import cluster_pb2 as pb

PATH = "/v1/join"


METHOD = f"{PACKAGE}ClusterService/JoinRaftCluster"


@dataclass(frozen=True, slots=True)
class _HttpContext:
    """What the door asks of a call's gRPC context, of a caller over HTTP."""

    caller: Caller

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {CERTIFICATE_KEY: [self.caller.certificate_pem]} if self.caller.certificate_pem else {}

    def peer(self) -> str:
        address = self.caller.address
        return f"ipv6:[{address}]:0" if ":" in address else f"ipv4:{address}:0"


def build_join(resolve: Callable[[str], Callable[..., Any]], door: Door) -> Take:
    """Return the route's function; `resolve` finds a method of ClusterService, or raises why there is none now."""

    async def join(body: bytes, caller: Caller) -> Answer:
        context = _HttpContext(caller)
        try:
            door.enter(METHOD, context)
            request = _parse(body)
            door.check(METHOD, request, context)
            answer = await resolve("JoinRaftCluster")(request, None)
        except CloudlessError as error:
            return _to_answer(error)
        return Answer(200, json_format.MessageToJson(answer) + "\n", "application/json")

    return join


def _parse(body: bytes) -> pb.JoinRaftClusterRequest:
    request = pb.JoinRaftClusterRequest()
    try:
        json_format.Parse(body, request, max_recursion_depth=8)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSpec([Problem("body", f"is not a JoinRaftClusterRequest in JSON: {str(error)[:200]}")]) from error
    return request


def _to_answer(error: CloudlessError) -> Answer:
    problems = [{"field": p.field, "message": p.message} for p in getattr(error, "problems", ())]
    document = {"code": error.code, "message": error.message, "hint": error.hint, "problems": problems}
    text = json.dumps({"error": document}) + "\n"
    return Answer(outcome_of(type(error)).http_status, text, "application/json")
