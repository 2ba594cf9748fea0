"""ClusterService, the part about upgrades: finishing one raises the feature level.

The decision rests on every member's record of itself, and is committed only if none of them has changed since: a
coordinator that is stopped, or comes back with another version, at that very moment makes it be decided anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudless.coordinator.api.access import Access, Decided
from cloudless.coordinator.membership import Members
from cloudless.core import keys
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state import View
from cloudless.core.versions import decide_finishing
from cloudless.errors import Conflict, Unavailable
from cloudless.rpc.v1 import cluster_pb2 as pb


class UpgradeCalls:
    """What ClusterService does to end an upgrade."""

    def __init__(self, access: Access, members: Members) -> None:
        self._access, self._members = access, members

    async def FinishUpgrade(self, request: pb.FinishUpgradeRequest, context: Any) -> pb.FinishUpgradeResponse:
        await self._members.refresh()
        names = [member.name or f"member {member.id:x}" for member in self._members.list]
        written = await self._access.write(
            request.options, b"finish-upgrade", lambda view: self._decide(view, names), context
        )
        return pb.FinishUpgradeResponse(
            header=self._access.header(written.revision),
            feature_level_before=written.answer["before"],
            feature_level=written.answer["level"],
        )

    def _decide(self, view: View, names: list[str]) -> Decided:
        cluster = view.cluster
        if cluster is None:
            raise Unavailable("the cluster has no name yet", hint="try again in a moment")
        running = {name: view.coordinators[name].version if name in view.coordinators else "" for name in names}
        finishing = decide_finishing(cluster.feature_level, running)
        if finishing.refusals:
            raise Conflict(
                f"the upgrade cannot be finished yet: {'; '.join(finishing.refusals)}",
                hint="`cloudless cluster upgrade --check` says what is left to do",
            )
        answer = {"before": cluster.feature_level, "level": finishing.level}
        if finishing.level == cluster.feature_level:
            return Decided(None, answer)
        told = f"the feature level is {finishing.level}, it was {cluster.feature_level or 'none'}"
        machine = self._access.replica.machine  # what `view` is a view of
        seen = (keys.CLUSTER, *(keys.coordinator(name) for name in names))
        change = Change(
            puts=(
                PutRecord(keys.CLUSTER, replace(cluster, feature_level=finishing.level)),
                self._access.event("UpgradeFinished", "cluster", told),
            ),
            preconditions=tuple(Precondition(key, machine.mod_revision(key)) for key in seen),
            reason=told,
        )
        return Decided(change, answer)
