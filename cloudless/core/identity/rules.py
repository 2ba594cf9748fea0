"""Who may call what: every RPC of every service, one line each. What is not listed nobody may call.

`machines` are coordinators and agents; `own` lets them speak only for themselves. `people` is the least role a
person needs (viewer < operator < admin). `reach` is what a person bound to namespaces may use it for.

A coordinator may call what coordinators need of each other and no more. It holds the CA's key and could give
itself any identity, so this is no wall against one that was taken over; it keeps mistakes small and the audit true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from cloudless.core.model import Role

PACKAGE = "cloudless.rpc.v1."


class Reach(Enum):
    """What a call concerns.

    CLUSTER    the whole cluster: not for people bound to namespaces
    SHARED     the whole cluster, but everyone may know it
    NAMESPACE  the namespaces the request names
    """

    CLUSTER = "cluster"
    SHARED = "shared"
    NAMESPACE = "namespace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may make one call. `anyone` needs no identity at all: liveness, and what precedes having one.

    `newcomers` lets in coordinators that no record knows yet, while the cluster is being founded: what it takes to
    become a member, after which each puts itself on record. `early` lets coordinators, and people as viewers, in by
    their certificates alone before there is state to look them up in: what coordinators ask each other on the way to
    it, what tells a person why it takes so long, and nothing that changes anything.
    """

    anyone: bool = False
    machines: tuple[Role, ...] = ()
    own: bool = False
    newcomers: bool = False
    early: bool = False
    people: Role | None = None
    reach: Reach = Reach.CLUSTER


_C, _A = Role.COORDINATOR, Role.AGENT
_ANYONE = Rule(anyone=True)
_COORDINATORS = Rule(machines=(_C,))
_EVERYBODY = Rule(machines=(_C, _A), people=Role.VIEWER, reach=Reach.SHARED)
_ADMIN = Rule(people=Role.ADMIN)
_OPERATOR = Rule(people=Role.OPERATOR)
_VIEWER = Rule(people=Role.VIEWER)
_SEE = Rule(people=Role.VIEWER, reach=Reach.SHARED)
_READ = Rule(people=Role.VIEWER, reach=Reach.NAMESPACE)
_WRITE = Rule(people=Role.OPERATOR, reach=Reach.NAMESPACE)

_OWN_RULES: dict[str, Rule] = {
    "ClusterService/GetStatus": Rule(machines=(_C,), people=Role.VIEWER, reach=Reach.SHARED),
    "ClusterService/ListMembers": Rule(machines=(_C,), people=Role.VIEWER, reach=Reach.SHARED),
    "ClusterService/GetDigest": Rule(machines=(_C,), people=Role.VIEWER, reach=Reach.SHARED),
    "ClusterService/GetFormation": Rule(
        machines=(_C,), newcomers=True, early=True, people=Role.VIEWER, reach=Reach.SHARED
    ),
    "ClusterService/JoinRaftCluster": Rule(machines=(_C,), own=True, newcomers=True),
    # One that leaves asks another to remove its member, by the member's id.
    "ClusterService/RemoveMember": Rule(machines=(_C,), people=Role.ADMIN),
    "ClusterService/UpdateMember": Rule(machines=(_C,), own=True, people=Role.ADMIN),
    "ClusterService/LeaveCluster": _ADMIN,
    "ClusterService/PromoteMember": _ADMIN,
    "ClusterService/ReplaceMember": _ADMIN,
    "ClusterService/GetAutopilot": Rule(machines=(_C,), people=Role.VIEWER, reach=Reach.SHARED),
    "ClusterService/SetAutopilot": _ADMIN,
    "ClusterService/GetScheduler": Rule(people=Role.VIEWER, reach=Reach.SHARED),
    "ClusterService/SetScheduler": _ADMIN,
    "ClusterService/TransferLeader": Rule(machines=(_C,), people=Role.OPERATOR),
    "ClusterService/FinishUpgrade": _ADMIN,
    "NodeService/ListNodes": _SEE,
    "NodeService/GetNode": _SEE,
    "NodeService/UpdateNode": _OPERATOR,
    "NodeService/RemoveNode": _OPERATOR,
    "WorkloadService/ApplyWorkload": _WRITE,
    "WorkloadService/ListWorkloads": _READ,
    "WorkloadService/GetWorkload": _READ,
    "WorkloadService/ScaleWorkload": _WRITE,
    "WorkloadService/DeleteWorkload": _WRITE,
    "WorkloadService/ExplainWorkload": _READ,
    "WorkloadService/PlanWorkload": _READ,
    "WorkloadService/GetRollout": _READ,
    "WorkloadService/UpdateRollout": _WRITE,
    "WorkloadService/ListRevisions": _READ,
    "WorkloadService/ReadLogs": _READ,
    "NameService/ListEndpoints": _READ,
    "NameService/WatchEndpoints": _READ,
    "TaskService/ListTasks": _READ,
    "TaskService/GetTask": _READ,
    "TaskService/ExecTask": _WRITE,
    "UsageService/ReadNodeUsage": _SEE,
    "UsageService/ReadTaskUsage": _READ,
    "UsageService/CollectUsage": _COORDINATORS,
    "EventService/ListEvents": _VIEWER,
    "EventService/Watch": _VIEWER,
    # A backup is the whole cluster, keys included: who may have one may do anything.
    "BackupService/SaveBackup": _ADMIN,
    "BackupService/StoreBackup": _ADMIN,
    "BackupService/FetchBackup": _ADMIN,
    "BackupService/PruneBackups": _ADMIN,
    "BackupService/SetBackupSchedule": _ADMIN,
    "BackupService/ListBackups": _SEE,
    # Of coordinators, too: a survivor asks by it whether another one has a quorum.
    "BackupService/GetBackupSchedule": Rule(machines=(_C,), people=Role.VIEWER, reach=Reach.SHARED),
    "AgentService/Session": Rule(machines=(_A,), own=True),
    "AgentLogService/ReadTaskLogs": _COORDINATORS,
    "AgentExecService/ExecTask": _COORDINATORS,
    "PeerService/Link": Rule(machines=(_C,), own=True),
    "MaintenanceService/InspectCoordinator": Rule(machines=(_C,), early=True, people=Role.VIEWER, reach=Reach.SHARED),
    "MaintenanceService/DefragmentMember": _COORDINATORS,
    "MaintenanceService/MoveRaftLeader": _COORDINATORS,
    "MaintenanceService/MakeRoom": Rule(machines=(_C,), people=Role.OPERATOR),
    "IdentityService/GetCa": _ANYONE,
    "IdentityService/Enrol": _ANYONE,
    "IdentityService/Reenrol": _ANYONE,
    "IdentityService/Renew": _EVERYBODY,
    "IdentityService/WhoAmI": _EVERYBODY,
    # Of coordinators for the first admin: whoever can read a coordinator's key on its host may do anything anyway.
    "IdentityService/CreateToken": Rule(machines=(_C,), people=Role.ADMIN),
    "IdentityService/ListTokens": _ADMIN,
    "IdentityService/RevokeToken": _ADMIN,
    "IdentityService/ListIdentities": _ADMIN,
    "IdentityService/RevokeIdentity": _ADMIN,
    "IdentityService/RotateCa": _ADMIN,
    "IdentityService/RotateClusterKey": _ADMIN,
    "IdentityService/GetClusterKey": _SEE,
    # Only of coordinators on record: the handler asks for that in the newest state.
    "IdentityService/FetchClusterKey": _COORDINATORS,
}
_FOREIGN_RULES: dict[str, Rule] = {
    "grpc.health.v1.Health/Check": _ANYONE,
    "grpc.health.v1.Health/List": _ANYONE,
    "grpc.health.v1.Health/Watch": _ANYONE,
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _EVERYBODY,
}

RULES: Mapping[str, Rule] = {
    **{PACKAGE + method: rule for method, rule in _OWN_RULES.items()},
    **_FOREIGN_RULES,
}
"""By full method name, `package.Service/Method`."""
