"""IdentityService, the part about the cluster key: have it replaced, see how far that is, hand it to a coordinator."""

from __future__ import annotations

from typing import Any, Protocol

from loguru import logger

from cloudless.coordinator.api.access import Access, Decided, content_of, with_puts
from cloudless.coordinator.api.caller import find_presence
from cloudless.coordinator.issuing import Issuer
from cloudless.core.identity.access import Forbidden, judge_identity
from cloudless.core.identity.key_rotation import (
    check_members_trusted,
    find_key_rotation,
    find_lacking,
    plan_key_rotation_start,
    wanted_keys,
)
from cloudless.core.identity.names import IdentityKind
from cloudless.core.identity.rotation import get_issuing
from cloudless.core.model import AuthorityPurpose
from cloudless.core.state import View
from cloudless.errors import CloudlessError, Denied, NotFound, Unauthenticated, Unavailable
from cloudless.rpc.v1 import common_pb2, objects_pb2
from cloudless.rpc.v1 import identity_pb2 as pb


class Belonging(Protocol):
    """Knows the names of etcd's members; `refresh` asks etcd."""

    def names(self) -> frozenset[str]: ...

    async def refresh(self) -> None: ...


class ClusterKeys:
    """What IdentityService answers about the cluster key."""

    def __init__(self, access: Access, issuer: Issuer, members: Belonging) -> None:
        self._access, self._issuer, self._members = access, issuer, members

    async def RotateClusterKey(self, request: pb.RotateClusterKeyRequest, context: Any) -> pb.RotateClusterKeyResponse:
        await self._members.refresh()

        def decide(view: View) -> Decided:
            check_members_trusted(view, self._members.names())
            change = plan_key_rotation_start(view, self._access.clock.wall_ms())
            return Decided(with_puts(change, self._access.event("TrustChanged", "cluster/pki", change.reason)), {})

        written = await self._access.write(request.options, content_of(request), decide, context)
        return pb.RotateClusterKeyResponse(header=self._access.header(written.revision))

    async def GetClusterKey(self, request: pb.GetClusterKeyRequest, context: Any) -> pb.GetClusterKeyResponse:
        view = await self._access.settle(request.read, context)
        found = find_key_rotation(view)
        answer = pb.GetClusterKeyResponse(header=self._access.header(), in_use=_find_in_use(view))
        if found is not None:
            answer.phase = getattr(objects_pb2, f"KEY_PHASE_{found.phase.name}")
            answer.phase_since_ms, answer.key = found.phase_since_ms, found.key
            answer.awaited.extend(find_lacking(view, {*self._members.names(), *view.coordinators}))
        return answer

    async def FetchClusterKey(self, request: pb.FetchClusterKeyRequest, context: Any) -> pb.FetchClusterKeyResponse:
        """Hand a key over. Only ever one that the state names, to a caller that the newest state knows.

        The door lets coordinators in by their certificates alone while none is on record; here that is not enough.
        """
        presence = find_presence()
        if presence is None:
            raise Unauthenticated("only a coordinator that shows a certificate may have the key")
        view = await self._access.settle(common_pb2.ReadOptions(), context)
        identity = presence.peer.identity
        known = view.identities.get((IdentityKind.COORDINATOR.value, identity.name))
        caller = judge_identity(
            identity, self._issuer.cluster_id, known.record if known else None, presence.peer.key_hash
        )
        if isinstance(caller, Forbidden) or identity.kind is not IdentityKind.COORDINATOR:
            raise Denied(f"{identity.subject} gets no cluster key: it is not a coordinator on record")
        if request.name not in wanted_keys(view):
            raise NotFound("no such cluster key is in use")
        key = self._issuer.find_key(request.name)
        if key is None:
            raise Unavailable(f"the cluster key {request.name} is not held here", hint="ask another coordinator")
        logger.info("the cluster key {} is handed to {}", key.name, identity.subject)
        return pb.FetchClusterKeyResponse(cluster_key=key.raw)


def _find_in_use(view: View) -> str:
    try:
        return get_issuing(view, AuthorityPurpose.CLUSTER).sealed_with
    except CloudlessError:
        return ""
