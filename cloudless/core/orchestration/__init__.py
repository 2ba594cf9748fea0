"""Keep what runs equal to what was asked for: pure planners from one view to a plan.

`replicas` decides which tasks of a workload to start and stop, `liveness` which nodes count as
reachable, `reap` which records nobody needs any more; `summary` says in words how things stand.
All are level-triggered: they look at what is, not at what happened, so a lost event loses nothing.
"""

from cloudless.core.orchestration.liveness import LivenessPlan, plan_liveness
from cloudless.core.orchestration.preview import Preview, preview_workloads
from cloudless.core.orchestration.reap import plan_event_reap, plan_reap
from cloudless.core.orchestration.replicas import (
    OrchestrationPlan,
    WorkloadPlan,
    in_order_of_priority,
    plan_workload,
    plan_workloads,
)
from cloudless.core.orchestration.revisions import SpecChange, change_spec, find_revision, find_rollout
from cloudless.core.orchestration.summary import (
    Explanation,
    NodeSummary,
    WorkloadState,
    WorkloadSummary,
    explain_workload,
    find_phase,
    summarise_node,
    summarise_workload,
    task_state_word,
)

__all__ = [
    "Explanation",
    "LivenessPlan",
    "NodeSummary",
    "OrchestrationPlan",
    "Preview",
    "SpecChange",
    "WorkloadPlan",
    "WorkloadState",
    "WorkloadSummary",
    "change_spec",
    "explain_workload",
    "find_phase",
    "find_revision",
    "find_rollout",
    "in_order_of_priority",
    "plan_event_reap",
    "plan_liveness",
    "plan_reap",
    "plan_workload",
    "plan_workloads",
    "preview_workloads",
    "summarise_node",
    "summarise_workload",
    "task_state_word",
]
