"""A workload: what a user wants to run, how many times, where, and how it may change.

`WorkloadSpec` holds exactly the fields this version honours. A field that a later version will know
is refused by name when a manifest uses it, never silently ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cloudless.core.model.evolving import Evolving
from cloudless.core.model.resources import Resources


class ExecutorKind(Enum):
    """What runs the task on its node."""

    PROCESS = "process"
    DOCKER = "docker"


class RestartCondition(Enum):
    """When the agent starts a task again that ended by itself."""

    ALWAYS = "ALWAYS"
    ON_FAILURE = "ON_FAILURE"
    NEVER = "NEVER"


class RolloutStrategy(Enum):
    """How tasks of an old generation give way to the new one."""

    ROLLING_UPDATE = "ROLLING_UPDATE"
    RECREATE = "RECREATE"


class SpreadTopology(Enum):
    """Over what replicas are spread evenly before anything else is considered. NONE packs tightly."""

    NONE = "none"
    NODE = "node"
    ZONE = "zone"
    REGION = "region"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port(Evolving):
    """A TCP port the task listens on. `host_port` 0 lets the agent choose a free one.

    The task finds the number in `CLOUDLESS_PORT_<NAME>`; `$(CLOUDLESS_PORT_<NAME>)` in its command,
    arguments and environment is replaced by it.
    """

    name: str
    host_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy(Evolving):
    """`max_retries` restarts in a row without a stable minute between them end the task as failed; 0 means no limit.

    The n-th restart in a row waits `backoff_s * 2**(n-1)`, at most 60 s.
    """

    condition: RestartCondition = RestartCondition.ALWAYS
    max_retries: int = 0
    backoff_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout(Evolving):
    """`max_surge` more tasks than replicas may exist, `max_unavailable` fewer than replicas may run, while changing."""

    strategy: RolloutStrategy = RolloutStrategy.ROLLING_UPDATE
    max_surge: int = 1
    max_unavailable: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement(Evolving):
    """Where tasks may run. Empty means anywhere. `node_selector` labels must all match."""

    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    spread_topology: SpreadTopology = SpreadTopology.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec(Evolving):
    """What the user asked for, complete with defaults.

    `lost_after_s`: how long a task of an unreachable node stays "unknown" before it is replaced.
    `stop_grace_s`: time between the polite and the final signal.
    """

    executor: ExecutorKind = ExecutorKind.PROCESS
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    requests: Resources = field(default_factory=lambda: Resources(cpu_millicores=100, memory_mb=64))
    replicas: int = 1
    placement: Placement = field(default_factory=Placement)
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    rollout: Rollout = field(default_factory=Rollout)
    stop_grace_s: float = 10.0
    lost_after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRecord(Evolving):
    """A workload as stored.

    `uid` tells two workloads of one name apart that lived one after the other. `generation` grows by
    one with each change of the spec; `task_generation` is the generation at which the tasks' own
    template last changed, so that scaling does not restart anything. `deleted_at_ms` > 0: its tasks are
    being stopped, then the record goes.
    """

    namespace: str
    name: str
    uid: str
    spec: WorkloadSpec
    generation: int = 1
    task_generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    created_at_ms: int = 0
    updated_at_ms: int = 0
    deleted_at_ms: int = 0
