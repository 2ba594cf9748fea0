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
from cloudless.core.model.placement import (
    WEIGHT_MAX,
    NodeOperator,
    NodeTerm,
    Placement,
    SpreadTopology,
    Topology,
    WorkloadTerm,
)
from cloudless.core.model.port import Port, PortProtocol
from cloudless.core.model.probe import Probe, ProbeKind
from cloudless.core.model.request import RequestRecord
from cloudless.core.model.resources import Limits, Resources
from cloudless.core.model.revision import RevisionRecord, RolloutPhase, RolloutRecord
from cloudless.core.model.rollout import Rollout, RolloutStrategy
from cloudless.core.model.scheduler import COST_LABEL, NETWORK_PENALTY_LABEL, SchedulerRecord
from cloudless.core.model.security import CAPABILITIES, RLIMIT_NAMES, RLIMIT_UNLIMITED, Rlimit, SecurityContext
from cloudless.core.model.taint import Taint, TaintEffect, Toleration, TolerationOperator
from cloudless.core.model.task import Desired, Instance, TaskDesired, TaskObserved, TaskSpec, TaskState
from cloudless.core.model.volume import Volume
from cloudless.core.model.workload import (
    ExecutorKind,
    ImagePullPolicy,
    Reconcile,
    RestartCondition,
    RestartPolicy,
    WorkloadMode,
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
    | SchedulerRecord
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
    | RevisionRecord
    | RolloutRecord
)
"""Any value that may be stored under a key of the cluster."""

__all__ = [
    "CAPABILITIES",
    "COST_LABEL",
    "NETWORK_PENALTY_LABEL",
    "RLIMIT_NAMES",
    "RLIMIT_UNLIMITED",
    "WEIGHT_MAX",
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
    "ImagePullPolicy",
    "Instance",
    "JoinRecord",
    "KeyPhase",
    "KeyRotationRecord",
    "LeaderRecord",
    "Limits",
    "NodeInfo",
    "NodeOperator",
    "NodePhase",
    "NodeSpec",
    "NodeStatus",
    "NodeTerm",
    "Placement",
    "Port",
    "PortProtocol",
    "Probe",
    "ProbeKind",
    "Reachability",
    "Reconcile",
    "Record",
    "ReplacementRecord",
    "RequestRecord",
    "Resources",
    "RestartCondition",
    "RestartPolicy",
    "RevisionRecord",
    "Rlimit",
    "Role",
    "Rollout",
    "RolloutPhase",
    "RolloutRecord",
    "RolloutStrategy",
    "SchedulerRecord",
    "SecurityContext",
    "Severity",
    "SpreadTopology",
    "Suspicion",
    "Taint",
    "TaintEffect",
    "TaskDesired",
    "TaskObserved",
    "TaskSpec",
    "TaskState",
    "TokenRecord",
    "Toleration",
    "TolerationOperator",
    "Topology",
    "Volume",
    "WorkloadMode",
    "WorkloadRecord",
    "WorkloadSpec",
    "WorkloadTerm",
]
