"""MaintenanceService: looking into a coordinator, and making room in the store."""

from __future__ import annotations

from typing import Any

import grpc.aio

from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.grpc.status import from_rpc_error
from cloudless.coordinator.api.access import Access
from cloudless.coordinator.hygiene import Hygiene
from cloudless.coordinator.space import SpaceWatch
from cloudless.core.hygiene.room import TOO_MUCH_IN_USE
from cloudless.errors import InvalidSpec, Problem, Unavailable
from cloudless.rpc.v1 import maintenance_pb2 as pb
from cloudless.rpc.v1.maintenance_pb2_grpc import MaintenanceServiceStub

MAKE_ROOM_S = 300.0


class Maintenance:
    """MaintenanceService of a coordinator whose member votes; InspectCoordinator is answered before that too."""

    def __init__(self, access: Access, hygiene: Hygiene, admin: EtcdAdmin, space: SpaceWatch, dialler: Dialler) -> None:
        self._access, self._hygiene, self._admin, self._space, self._dialler = access, hygiene, admin, space, dialler

    async def DefragmentMember(self, request: object, context: Any) -> pb.DefragmentMemberResponse:
        return await self._hygiene.defragment_own()

    async def MoveRaftLeader(self, request: pb.MoveRaftLeaderRequest, context: Any) -> pb.MoveRaftLeaderResponse:
        if not request.to_member_id:
            raise InvalidSpec([Problem("to_member_id", "must be given")])
        await self._admin.move_leader(request.to_member_id)
        return pb.MoveRaftLeaderResponse()

    async def MakeRoom(self, request: pb.MakeRoomRequest, context: Any) -> pb.MakeRoomResponse:
        """Let the leader do it; without one that answers, do it here: without room no leader can be elected."""
        machine, own_id = self._access.replica.machine, self._access.own_id
        queue = machine.candidates()
        leader_id = queue[0].record.coordinator_id if queue else ""
        leader = machine.coordinators.get(leader_id)
        if leader is not None and leader_id != own_id:
            try:
                return await self._forward(leader.api_address, request)
            except Unavailable:
                pass
        steps, short_of = await self._hygiene.make_room(request.dry_run)
        return pb.MakeRoomResponse(coordinator_id=own_id, steps=steps, short_of=short_of or self._still_short())

    def _still_short(self) -> str:
        """Why users are refused even now that there is no more to do."""
        shortage = self._space.shortage
        return shortage and f"{shortage}: {TOO_MUCH_IN_USE}"

    async def _forward(self, address: str, request: pb.MakeRoomRequest) -> pb.MakeRoomResponse:
        channel = self._dialler.open(address)
        try:
            stub: Any = MaintenanceServiceStub(channel)  # type: ignore[no-untyped-call]
            answer: pb.MakeRoomResponse = await stub.MakeRoom(request, timeout=MAKE_ROOM_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            await channel.close()
        return answer
