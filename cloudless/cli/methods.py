"""Every call a coordinator offers to people, with its types and how it may be tried again.

`repeatable`: sent twice it has one effect: a read, or a write that carries a request id. `attempt_s`: how long
one coordinator may take before the next is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from cloudless.rpc.v1 import (
    backup_pb2,
    cluster_pb2,
    event_pb2,
    exec_pb2,
    identity_pb2,
    maintenance_pb2,
    names_pb2,
    node_pb2,
    usage_pb2,
    workload_pb2,
)

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
ATTEMPT_S = 2.0


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """One call: its full path, its messages, and the limits of one attempt."""

    path: str
    request: type[Q]
    response: type[A]
    repeatable: bool = True
    attempt_s: float = ATTEMPT_S

    @property
    def writes(self) -> bool:
        """Whether the call changes something under a request id."""
        options = self.request.DESCRIPTOR.fields_by_name.get("options")
        kind = options.message_type if options else None
        return kind is not None and kind.name == "WriteOptions"


def _method(
    name: str, request: type[Q], response: type[A], *, repeatable: bool = True, attempt_s: float = ATTEMPT_S
) -> Method[Q, A]:
    return Method(f"/cloudless.rpc.v1.{name}", request, response, repeatable, attempt_s)


_c, _n, _w, _e, _i, _b = cluster_pb2, node_pb2, workload_pb2, event_pb2, identity_pb2, backup_pb2
_m, _x, _na = maintenance_pb2, exec_pb2, names_pb2

GET_STATUS = _method("ClusterService/GetStatus", _c.GetStatusRequest, _c.GetStatusResponse)
LIST_MEMBERS = _method("ClusterService/ListMembers", _c.ListMembersRequest, _c.ListMembersResponse, attempt_s=4.0)
GET_DIGEST = _method("ClusterService/GetDigest", _c.GetDigestRequest, _c.GetDigestResponse)
REMOVE_MEMBER = _method("ClusterService/RemoveMember", _c.RemoveMemberRequest, _c.RemoveMemberResponse, attempt_s=5.0)
UPDATE_MEMBER = _method("ClusterService/UpdateMember", _c.UpdateMemberRequest, _c.UpdateMemberResponse, attempt_s=5.0)
# Asked twice it is refused the second time: its coordinator has gone.
LEAVE_CLUSTER = _method(
    "ClusterService/LeaveCluster", _c.LeaveClusterRequest, _c.LeaveClusterResponse, repeatable=False, attempt_s=10.0
)
PROMOTE_MEMBER = _method(
    "ClusterService/PromoteMember", _c.PromoteMemberRequest, _c.PromoteMemberResponse, attempt_s=5.0
)
REPLACE_MEMBER = _method(
    "ClusterService/ReplaceMember", _c.ReplaceMemberRequest, _c.ReplaceMemberResponse, attempt_s=5.0
)
GET_AUTOPILOT = _method("ClusterService/GetAutopilot", _c.GetAutopilotRequest, _c.GetAutopilotResponse, attempt_s=4.0)
GET_SCHEDULER = _method("ClusterService/GetScheduler", _c.GetSchedulerRequest, _c.GetSchedulerResponse)
SET_SCHEDULER = _method("ClusterService/SetScheduler", _c.SetSchedulerRequest, _c.SetSchedulerResponse)
SET_AUTOPILOT = _method("ClusterService/SetAutopilot", _c.SetAutopilotRequest, _c.SetAutopilotResponse)
# No request id: asked twice it would move leadership twice.
TRANSFER_LEADER = _method(
    "ClusterService/TransferLeader", _c.TransferLeaderRequest, _c.TransferLeaderResponse, repeatable=False
)
FINISH_UPGRADE = _method(
    "ClusterService/FinishUpgrade", _c.FinishUpgradeRequest, _c.FinishUpgradeResponse, attempt_s=5.0
)
GET_FORMATION = _method("ClusterService/GetFormation", _c.GetFormationRequest, _c.GetFormationResponse)
# A backup takes as long as the state is large; a second one would do the same once more, so it is not repeated.
SAVE_BACKUP = _method("BackupService/SaveBackup", _b.SaveBackupRequest, _b.SaveBackupResponse, repeatable=False)
STORE_BACKUP = _method(
    "BackupService/StoreBackup", _b.StoreBackupRequest, _b.StoreBackupResponse, repeatable=False, attempt_s=900.0
)
LIST_BACKUPS = _method("BackupService/ListBackups", _b.ListBackupsRequest, _b.ListBackupsResponse, attempt_s=10.0)
FETCH_BACKUP = _method("BackupService/FetchBackup", _b.FetchBackupRequest, _b.FetchBackupResponse)
PRUNE_BACKUPS = _method("BackupService/PruneBackups", _b.PruneBackupsRequest, _b.PruneBackupsResponse, attempt_s=60.0)
GET_BACKUP_SCHEDULE = _method(
    "BackupService/GetBackupSchedule", _b.GetBackupScheduleRequest, _b.GetBackupScheduleResponse
)
SET_BACKUP_SCHEDULE = _method(
    "BackupService/SetBackupSchedule", _b.SetBackupScheduleRequest, _b.SetBackupScheduleResponse
)
LIST_NODES = _method("NodeService/ListNodes", _n.ListNodesRequest, _n.ListNodesResponse)
GET_NODE = _method("NodeService/GetNode", _n.GetNodeRequest, _n.GetNodeResponse)
UPDATE_NODE = _method("NodeService/UpdateNode", _n.UpdateNodeRequest, _n.UpdateNodeResponse)
REMOVE_NODE = _method("NodeService/RemoveNode", _n.RemoveNodeRequest, _n.RemoveNodeResponse)
APPLY_WORKLOAD = _method("WorkloadService/ApplyWorkload", _w.ApplyWorkloadRequest, _w.ApplyWorkloadResponse)
LIST_WORKLOADS = _method("WorkloadService/ListWorkloads", _w.ListWorkloadsRequest, _w.ListWorkloadsResponse)
GET_WORKLOAD = _method("WorkloadService/GetWorkload", _w.GetWorkloadRequest, _w.GetWorkloadResponse)
SCALE_WORKLOAD = _method("WorkloadService/ScaleWorkload", _w.ScaleWorkloadRequest, _w.ScaleWorkloadResponse)
DELETE_WORKLOAD = _method("WorkloadService/DeleteWorkload", _w.DeleteWorkloadRequest, _w.DeleteWorkloadResponse)
PLAN_WORKLOAD = _method("WorkloadService/PlanWorkload", _w.PlanWorkloadRequest, _w.PlanWorkloadResponse)
EXPLAIN_WORKLOAD = _method("WorkloadService/ExplainWorkload", _w.ExplainWorkloadRequest, _w.ExplainWorkloadResponse)
GET_ROLLOUT = _method("WorkloadService/GetRollout", _w.GetRolloutRequest, _w.GetRolloutResponse)
UPDATE_ROLLOUT = _method("WorkloadService/UpdateRollout", _w.UpdateRolloutRequest, _w.UpdateRolloutResponse)
LIST_REVISIONS = _method("WorkloadService/ListRevisions", _w.ListRevisionsRequest, _w.ListRevisionsResponse)
READ_LOGS = _method("WorkloadService/ReadLogs", _w.ReadLogsRequest, _w.ReadLogsResponse)
READ_NODE_USAGE = _method(
    "UsageService/ReadNodeUsage", usage_pb2.ReadNodeUsageRequest, usage_pb2.ReadNodeUsageResponse, attempt_s=4.0
)
READ_TASK_USAGE = _method(
    "UsageService/ReadTaskUsage", usage_pb2.ReadTaskUsageRequest, usage_pb2.ReadTaskUsageResponse, attempt_s=4.0
)
LIST_ENDPOINTS = _method("NameService/ListEndpoints", _na.ListEndpointsRequest, _na.ListEndpointsResponse)
WATCH_ENDPOINTS = _method("NameService/WatchEndpoints", _na.WatchEndpointsRequest, _na.WatchEndpointsResponse)
LIST_TASKS = _method("TaskService/ListTasks", _w.ListTasksRequest, _w.ListTasksResponse)
GET_TASK = _method("TaskService/GetTask", _w.GetTaskRequest, _w.GetTaskResponse)
# Tried on the next coordinator only as long as nobody has said that it has begun.
EXEC_TASK = _method("TaskService/ExecTask", _x.ExecTaskRequest, _x.ExecTaskResponse, repeatable=False)
LIST_EVENTS = _method("EventService/ListEvents", _e.ListEventsRequest, _e.ListEventsResponse)
WATCH = _method("EventService/Watch", _e.WatchRequest, _e.WatchResponse)
INSPECT_COORDINATOR = _method(
    "MaintenanceService/InspectCoordinator", _m.InspectCoordinatorRequest, _m.InspectCoordinatorResponse, attempt_s=4.0
)
# Minutes: every member is defragmented, one after the other. Done twice it finds nothing left to do.
MAKE_ROOM = _method("MaintenanceService/MakeRoom", _m.MakeRoomRequest, _m.MakeRoomResponse, attempt_s=300.0)
GET_CA = _method("IdentityService/GetCa", _i.GetCaRequest, _i.GetCaResponse)
ENROL = _method("IdentityService/Enrol", _i.EnrolRequest, _i.EnrolResponse)
REENROL = _method("IdentityService/Reenrol", _i.ReenrolRequest, _i.ReenrolResponse)
RENEW = _method("IdentityService/Renew", _i.RenewRequest, _i.RenewResponse)
WHO_AM_I = _method("IdentityService/WhoAmI", _i.WhoAmIRequest, _i.WhoAmIResponse)
CREATE_TOKEN = _method("IdentityService/CreateToken", _i.CreateTokenRequest, _i.CreateTokenResponse)
LIST_TOKENS = _method("IdentityService/ListTokens", _i.ListTokensRequest, _i.ListTokensResponse)
REVOKE_TOKEN = _method("IdentityService/RevokeToken", _i.RevokeTokenRequest, _i.RevokeTokenResponse)
LIST_IDENTITIES = _method("IdentityService/ListIdentities", _i.ListIdentitiesRequest, _i.ListIdentitiesResponse)
REVOKE_IDENTITY = _method("IdentityService/RevokeIdentity", _i.RevokeIdentityRequest, _i.RevokeIdentityResponse)
ROTATE_CLUSTER_KEY = _method(
    "IdentityService/RotateClusterKey", _i.RotateClusterKeyRequest, _i.RotateClusterKeyResponse
)
GET_CLUSTER_KEY = _method("IdentityService/GetClusterKey", _i.GetClusterKeyRequest, _i.GetClusterKeyResponse)
ROTATE_CA = _method("IdentityService/RotateCa", _i.RotateCaRequest, _i.RotateCaResponse)
