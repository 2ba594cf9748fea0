"""Having the cluster key replaced, and waiting for it: for `ca rotate-key` and for `identity revoke --rotate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudless.cli.methods import GET_CLUSTER_KEY, ROTATE_CLUSTER_KEY
from cloudless.cli.plain import enum_word
from cloudless.cli.waiting import wait_for
from cloudless.rpc.v1.common_pb2 import WriteOptions
from cloudless.rpc.v1.identity_pb2 import GetClusterKeyRequest, GetClusterKeyResponse, RotateClusterKeyRequest
from cloudless.rpc.v1.objects_pb2 import KeyPhase

if TYPE_CHECKING:
    from cloudless.cli.client import Client


def rotate_cluster_key(client: Client, timeout_s: float, request_id: str = "") -> GetClusterKeyResponse:
    """Have the key replaced; return when everything is sealed with the new one. Raises StoreTimeout, Conflict.

    `timeout_s` 0: return at once.
    """
    client.call(ROTATE_CLUSTER_KEY, RotateClusterKeyRequest(options=WriteOptions(request_id=request_id)))

    def look() -> tuple[bool, GetClusterKeyResponse, str]:
        answer = client.call(GET_CLUSTER_KEY, GetClusterKeyRequest())
        return answer.phase == KeyPhase.KEY_PHASE_DONE, answer, describe(answer)

    return wait_for(look, timeout_s, "replaced: the cluster key") if timeout_s else look()[1]


def describe(answer: GetClusterKeyResponse) -> str:
    """Return how far the replacement is, in words."""
    awaited = ", ".join(answer.awaited)
    match enum_word(KeyPhase.DESCRIPTOR, answer.phase):
        case "WANTED":
            return "the leader makes a new key"
        case "DISTRIBUTING":
            return f"the new key is handed out; without it: {awaited or 'nobody'}"
        case "DONE" if awaited:
            return f"replaced; to be fetched on their return by {awaited}"
        case "DONE":
            return "replaced, and all coordinators have the new key"
        case _:
            return "never replaced"
