"""`POST /v1/join`: JoinRaftCluster for who has HTTP and no gRPC; the same handler, the same errors, as JSON.

The body is the request in protobuf's JSON form (`{"nodeId": "coordinator-4", "raftAddress": "10.0.0.4:3000", …}`). The
answer is the response in the same form, or `{"error": {"code", "message", "hint", "problems"}}` with the status of that
error.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import json_format

from cloudless.adapters.http.server import Answer
from cloudless.errors import CloudlessError, InvalidSpec, Problem, outcome_of
from cloudless.rpc.v1 import cluster_pb2 as pb

PATH = "/v1/join"


def build_join(resolve: Callable[[str], Callable[..., Any]]) -> Callable[[bytes], Awaitable[Answer]]:
    """Return the route's function; `resolve` finds a method of ClusterService, or raises why there is none now."""

    async def join(body: bytes) -> Answer:
        try:
            answer = await resolve("JoinRaftCluster")(_parse(body), None)
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
