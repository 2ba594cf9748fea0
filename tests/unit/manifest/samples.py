"""A specification with nothing said, and ones that say everything, no two fields alike."""

from __future__ import annotations

from typing import Any

from cloudless.core.fields import Fields, Problems
from cloudless.core.manifest.spec import read_spec
from cloudless.core.model import (
    ExecutorKind,
    ImagePullPolicy,
    Limits,
    NodeOperator,
    NodeTerm,
    Placement,
    Port,
    PortProtocol,
    Probe,
    ProbeKind,
    Reconcile,
    Resources,
    RestartCondition,
    RestartPolicy,
    Rlimit,
    Rollout,
    RolloutStrategy,
    SecurityContext,
    SpreadTopology,
    TaintEffect,
    Toleration,
    TolerationOperator,
    Topology,
    Volume,
    WorkloadMode,
    WorkloadSpec,
    WorkloadTerm,
)

PLAIN = WorkloadSpec(command=("a",))

FULL = WorkloadSpec(
    executor=ExecutorKind.DOCKER,
    image="i",
    command=("b",),
    args=("c",),
    env={"A": "1"},
    ports=(
        Port(name="p", host_port=80, container_port=8080),
        Port(name="dns", protocol=PortProtocol.UDP),
    ),
    requests=Resources(1, 2, 3, 4, 5),
    replicas=7,
    placement=Placement(
        regions=("r",),
        zones=("z",),
        node_selector={"k": "v"},
        spread_topology=SpreadTopology.NODE,
        tolerations=(
            Toleration(key="k", value="v", effect=TaintEffect.NO_EXECUTE),
            Toleration(operator=TolerationOperator.EXISTS),
        ),
        node_affinity=(
            NodeTerm(key="disk", operator=NodeOperator.IN, values=("ssd", "nvme")),
            NodeTerm(key="old", operator=NodeOperator.DOES_NOT_EXIST, weight=9),
        ),
        workload_affinity=(
            WorkloadTerm(workload="db", topology=Topology.ZONE),
            WorkloadTerm(labels={"app": "cache"}, weight=100),
        ),
        workload_anti_affinity=(
            WorkloadTerm(labels={"app": "web"}),
            WorkloadTerm(workload="batch", topology=Topology.REGION, weight=1),
        ),
    ),
    restart_policy=RestartPolicy(condition=RestartCondition.NEVER, max_retries=9, backoff_s=9.0),
    rollout=Rollout(
        strategy=RolloutStrategy.CANARY,
        max_surge=0,
        max_surge_percent=30,
        min_available_percent=60,
        batch_size=4,
        pause_s=5.0,
        min_ready_s=6.5,
        progress_deadline_s=7.0,
        auto_rollback=False,
        canary=2,
        auto_promote=True,
    ),
    stop_grace_s=9.0,
    lost_after_s=9.0,
    liveness_probe=Probe(kind=ProbeKind.EXEC, command=("check", "me"), failure_threshold=5),
    readiness_probe=Probe(
        kind=ProbeKind.HTTP,
        port="p",
        path="/ready",
        initial_delay_s=1.0,
        period_s=2.0,
        timeout_s=0.5,
        success_threshold=2,
        failure_threshold=4,
    ),
    volumes=(
        Volume(name="data", mount_path="/data", host_path="/srv/data", read_only=True),
        Volume(name="scratch", mount_path="/scratch", size_mb=2048),
    ),
    limits=Limits(cpu_millicores=10, memory_mb=20, pids=30),
    security_context=SecurityContext(
        run_as_user=0,
        run_as_group=1000,
        read_only_root=True,
        add_capabilities=("NET_ADMIN",),
        drop_capabilities=("ALL",),
        private_tmp=True,
        rlimits=(Rlimit(name="core", soft=-1, hard=-1), Rlimit(name="nofile", soft=10, hard=20)),
    ),
    image_pull_policy=ImagePullPolicy.NEVER,
    priority=-3,
    reconcile=Reconcile.BEST,
    stop_after_s=60.0,
)
"""Every field differs from its default but `mode`, which excludes others, and what a percentage excludes."""

PER_NODE = WorkloadSpec(
    command=("b",),
    mode=WorkloadMode.PER_NODE,
    ports=(Port(name="p"),),
    liveness_probe=Probe(kind=ProbeKind.TCP, port="p"),
    rollout=Rollout(max_surge=3, max_unavailable=2),
)
COUNTED = WorkloadSpec(command=("b",), rollout=Rollout(max_surge=0, min_available=0))
SAMPLES = (PLAIN, FULL, PER_NODE, COUNTED)


def read(spec: Any) -> tuple[WorkloadSpec, list[str]]:
    """Return what the decoded `spec` says, whether or not this version honours it, and the problems with it."""
    problems = Problems()
    made = read_spec(Fields(spec, "spec", problems))
    return made, [str(problem) for problem in problems.found()]
