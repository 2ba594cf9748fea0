"""The objects of a cluster as frozen values: what a user asked for, what was decided, what was seen.

Spec belongs to the user, status and info to the observer, desired state to the leader: each stored
record has exactly one kind of writer, which is why one object may be spread over several records.
"""

from cloudless.core.model.backup import BackupSettings, BackupStatus
from cloudless.core.model.cluster import ClusterRecord, CoordinatorRecord, LeaderRecord, Suspicion
from cloudless.core.model.event import EventRecord, Severity
from cloudless.core.model.identity import (
    AuthorityPhase,
    AuthorityPurpose,
    AuthorityRecord,
    IdentityRecord,
    KeyPhase,
    KeyRotationRecord,
    Role,
    TokenRecord,
)
from cloudless.core.model.membership import (
    AutopilotRecord,
    AutopilotStatus,
    AutopilotWait,
    JoinRecord,
    ReplacementRecord,
)
from cloudless.core.model.node import NodeInfo, NodePhase, NodeSpec, NodeStatus, Reachability
from cloudless.core.model.request import RequestRecord
from cloudless.core.model.resources import Resources
from cloudless.core.model.task import Desired, Instance, TaskDesired, TaskObserved, TaskSpec, TaskState
from cloudless.core.model.workload import (
    ExecutorKind,
    Placement,
    Port,
    RestartCondition,
    RestartPolicy,
    Rollout,
    RolloutStrategy,
    SpreadTopology,
    WorkloadRecord,
    WorkloadSpec,
)

Record = (
    ClusterRecord
    | CoordinatorRecord
    | LeaderRecord
    | Suspicion
    | AutopilotRecord
    | AutopilotStatus
    | JoinRecord
    | ReplacementRecord
    | NodeSpec
    | NodeInfo
    | NodeStatus
    | WorkloadRecord
    | TaskDesired
    | TaskObserved
    | EventRecord
    | RequestRecord
    | BackupSettings
    | BackupStatus
    | AuthorityRecord
    | TokenRecord
    | IdentityRecord
    | KeyRotationRecord
)
"""Any value that may be stored under a key of the cluster."""

__all__ = [
    "AuthorityPhase",
    "AuthorityPurpose",
    "AuthorityRecord",
    "AutopilotRecord",
    "AutopilotStatus",
    "AutopilotWait",
    "BackupSettings",
    "BackupStatus",
    "ClusterRecord",
    "CoordinatorRecord",
    "Desired",
    "EventRecord",
    "ExecutorKind",
    "IdentityRecord",
    "Instance",
    "JoinRecord",
    "KeyPhase",
    "KeyRotationRecord",
    "LeaderRecord",
    "NodeInfo",
    "NodePhase",
    "NodeSpec",
    "NodeStatus",
    "Placement",
    "Port",
    "Reachability",
    "Record",
    "ReplacementRecord",
    "RequestRecord",
    "Resources",
    "RestartCondition",
    "RestartPolicy",
    "Role",
    "Rollout",
    "RolloutStrategy",
    "Severity",
    "SpreadTopology",
    "Suspicion",
    "TaskDesired",
    "TaskObserved",
    "TaskSpec",
    "TaskState",
    "TokenRecord",
    "WorkloadRecord",
    "WorkloadSpec",
]
