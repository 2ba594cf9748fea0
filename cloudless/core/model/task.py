"""A task: one instance of a workload on one node.

`TaskDesired` is the leader's decision, `TaskObserved` the agent's report. A task never moves to
another node and never comes back from a final state: its replacement is a new task with a new id.
An agent may start a task's process again by its restart policy; each start is an attempt, and
(attempt, state) only ever moves forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cloudless.core.model.evolving import Evolving
from cloudless.core.model.port import Port
from cloudless.core.model.probe import Probe
from cloudless.core.model.resources import Limits, Resources
from cloudless.core.model.security import SecurityContext
from cloudless.core.model.volume import Volume
from cloudless.core.model.workload import ExecutorKind, ImagePullPolicy, RestartPolicy


class Desired(Enum):
    """What the leader wants of a task; RUNNING may become STOPPED, never the other way."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class TaskState(Enum):
    """What the agent sees. See `core.lifecycle` for the moves allowed.

    ACCEPTED   taken into the agent's journal, not yet started
    STARTING   the executor was asked to start it
    RUNNING    it runs
    BACKOFF    it ended and waits to be started again
    STOPPING   it was asked to end
    COMPLETED  ended by itself with success and is not to be restarted (final)
    FAILED     ended, or could not start, and is not to be restarted (final)
    STOPPED    ended because the leader wanted so (final)
    """

    ACCEPTED = "ACCEPTED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec(Evolving):
    """All that an agent needs to run a task, fixed for the task's life. The fields are those of `WorkloadSpec`."""

    executor: ExecutorKind = ExecutorKind.PROCESS
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    requests: Resources = field(default_factory=Resources)
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    stop_grace_s: float = 10.0
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    volumes: tuple[Volume, ...] = ()
    limits: Limits = field(default_factory=Limits)
    security_context: SecurityContext = field(default_factory=SecurityContext)
    image_pull_policy: ImagePullPolicy = ImagePullPolicy.IF_NOT_PRESENT
    stop_after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDesired(Evolving):
    """The leader's decision about one task.

    `slot` numbers the replica it fills (0-based); `task_generation` is the workload's when the task
    was made; `term` is the deciding leader's. `reason` says why it was made or is to stop. `traceparent` is the trace
    context (W3C) of the decision to make it, "" if that is not traced; nothing is decided by it.
    `successor_id`: the task that was made to take its place on a better node ("": none was). It means something only
    while that one is in the slot too, and no second one is made if that one fails.
    """

    id: str
    namespace: str
    workload: str
    workload_uid: str
    task_generation: int
    slot: int
    node_id: str
    spec: TaskSpec
    desired: Desired = Desired.RUNNING
    term: int = 0
    reason: str = ""
    created_at_ms: int = 0
    stopped_at_ms: int = 0
    successor_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskObserved(Evolving):
    """The agent's last report about one task.

    `sequence` grows by one with every report of this task, so that a report that took a longer way
    cannot overwrite a later one. `exit_code` and `signal` are of the last attempt that ended (-1: none
    yet; a process ended by a signal has `signal` > 0 and `exit_code` -1).

    `ready` is False while the readiness probe has not passed, and means something in RUNNING only; a task without
    that probe is always ready. `ready_since_ms` is when `ready` last changed (0: it never did in this attempt).
    `probe_failures` counts the attempts that ended because the liveness probe failed.
    """

    task_id: str
    node_id: str
    sequence: int
    state: TaskState
    attempt: int = 0
    restarts: int = 0
    pid: int = 0
    exit_code: int = -1
    signal: int = 0
    message: str = ""
    host: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    started_at_ms: int = 0
    finished_at_ms: int = 0
    ready: bool = True
    ready_since_ms: int = 0
    probe_failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A living or ended attempt at a task, as its executor knows it. `exit_code` -1 and `signal` 0 while it runs.

    `ran_s` is for how long it ran, or has run so far, on a clock that never jumps. `message` says what is
    unusual about its end (the machine was rebooted, its exit code is lost), and is empty otherwise.
    """

    task_id: str
    attempt: int
    running: bool
    pid: int = 0
    exit_code: int = -1
    signal: int = 0
    started_at_ms: int = 0
    finished_at_ms: int = 0
    ran_s: float = 0.0
    message: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
