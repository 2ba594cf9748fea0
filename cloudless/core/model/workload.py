"""A workload: what a user wants to run, how many times, where, and how it may change.

`WorkloadSpec` holds every field a manifest may have. Those that are known but not yet honoured are listed in
`core.manifest.unsupported`: a manifest that sets one is refused by name, so none is ever silently ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cloudless.core.model.evolving import Evolving
from cloudless.core.model.placement import Placement
from cloudless.core.model.port import Port
from cloudless.core.model.probe import Probe
from cloudless.core.model.resources import Limits, Resources
from cloudless.core.model.rollout import Rollout
from cloudless.core.model.security import SecurityContext
from cloudless.core.model.volume import Volume


class ExecutorKind(Enum):
    """What runs the task on its node."""

    PROCESS = "process"
    DOCKER = "docker"


class WorkloadMode(Enum):
    """How many tasks there are: `replicas` of them, or one on every node that fits."""

    REPLICATED = "REPLICATED"
    PER_NODE = "PER_NODE"


class ImagePullPolicy(Enum):
    """When a node fetches the image: before each attempt, if it has none, or never (it must be there)."""

    ALWAYS = "ALWAYS"
    IF_NOT_PRESENT = "IF_NOT_PRESENT"
    NEVER = "NEVER"


class Reconcile(Enum):
    """Which of two tasks stays when a node returns whose task was replaced meanwhile.

    KEEP_ORIGINAL     the one on the node that returned, if it still runs
    KEEP_REPLACEMENT  the one that took its place
    BEST              the one that is ready, and of two ready ones the one on the node that suits better
    """

    KEEP_ORIGINAL = "KEEP_ORIGINAL"
    KEEP_REPLACEMENT = "KEEP_REPLACEMENT"
    BEST = "BEST"


class RestartCondition(Enum):
    """When the agent starts a task again that ended by itself."""

    ALWAYS = "ALWAYS"
    ON_FAILURE = "ON_FAILURE"
    NEVER = "NEVER"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy(Evolving):
    """`max_retries` restarts in a row without a stable minute between them end the task as failed; 0 means no limit.

    The n-th restart in a row waits `backoff_s * 2**(n-1)`, at most 60 s.
    """

    condition: RestartCondition = RestartCondition.ALWAYS
    max_retries: int = 0
    backoff_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec(Evolving):
    """What the user asked for, complete with defaults.

    `requests` is what a task is sure to get, `limits` what it may not exceed. `priority`: where room is short, higher
    ones are placed first. `replicas` means nothing with PER_NODE.
    `lost_after_s`: how long a task of an unreachable node stays "unknown" before it is replaced.
    `stop_after_s`: how long a task whose agent reaches no coordinator goes on before the agent stops it (0: for
    ever). `stop_grace_s`: time between the polite and the final signal.
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
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    volumes: tuple[Volume, ...] = ()
    limits: Limits = field(default_factory=Limits)
    security_context: SecurityContext = field(default_factory=SecurityContext)
    image_pull_policy: ImagePullPolicy = ImagePullPolicy.IF_NOT_PRESENT
    mode: WorkloadMode = WorkloadMode.REPLICATED
    priority: int = 0
    reconcile: Reconcile = Reconcile.KEEP_REPLACEMENT
    stop_after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRecord(Evolving):
    """A workload as stored.

    `uid` tells two workloads of one name apart that lived one after the other. `generation` grows by
    one with each change of the spec; `task_generation` is the generation at which the tasks' own
    template last changed, so that scaling does not restart anything. `deleted_at_ms` > 0: its tasks are
    being stopped, then the record goes.

    A change of the template begins a rollout, named by the generation that brought it: `rollout_generation` (0: the
    template never changed). A person's word on it names it too, so that it says nothing of the next one: paused if
    `paused_generation` equals it, promoted if `promoted_generation` does. `rollback_of` is the template generation
    that the present template was put back for (0: it is no rollback). `history` lists the generations whose
    templates are kept in `RevisionRecord`s, oldest first. `traceparent` is the trace context (W3C) of the user's last
    change, "" if that is not traced; nothing is decided by it.
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
    rollout_generation: int = 0
    paused_generation: int = 0
    promoted_generation: int = 0
    rollback_of: int = 0
    history: tuple[int, ...] = ()
    traceparent: str = ""
