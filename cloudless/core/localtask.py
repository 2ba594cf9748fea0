"""A task as its agent knows it, what may happen to it, and what may have to be done about it.

The values of `core.taskflow`, which says how they belong together. All are frozen and compare by content,
so that "nothing changed" can be seen and a journal entry read back equals the one written (but for `note` and
`begun_s`, which the next life of the agent finds out anew).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cloudless.core.model import Desired, Instance, TaskDesired, TaskState


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks: `monotonic_s` decides, `wall_ms` is shown to people."""

    monotonic_s: float
    wall_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTask:
    """A task as its agent knows it.

    `attempt` is the last one begun (0: none). `retries` counts restarts in a row without a stable minute.
    `listed`: the coordinator still assigns it; once it does not, the task is stopped and then forgotten.
    `backoff_until_s` means something in BACKOFF only. `exit_code` and `signal` are the last ended attempt's.
    `begun_s` is when the attempt started, in monotonic seconds. Of the living attempt `ailing` says why this node ends
    it ("": it does not), `unready` why it is not ready, as far as known, and `note` what its executor has to say.
    """

    desired: TaskDesired
    state: TaskState = TaskState.ACCEPTED
    attempt: int = 0
    retries: int = 0
    sequence: int = 0
    listed: bool = True
    ports: Mapping[str, int] = field(default_factory=dict)
    backoff_until_s: float = 0.0
    pid: int = 0
    exit_code: int = -1
    signal: int = 0
    message: str = ""
    started_at_ms: int = 0
    finished_at_ms: int = 0
    ready: bool = True
    ready_since_ms: int = 0
    probe_failures: int = 0
    ailing: str = ""
    unready: str = ""
    note: str = ""
    begun_s: float = 0.0

    @property
    def id(self) -> str:
        return self.desired.id

    @property
    def restarts(self) -> int:
        return max(0, self.attempt - 1)

    @property
    def wanted(self) -> bool:
        """Return whether the task is to run."""
        return self.listed and self.desired.desired is Desired.RUNNING


# --- events -------------------------------------------------------------------------------------


class StartFault(Enum):
    """Why a start failed. PERMANENT is final, the others are tried again.

    AGENT: the agent could not even try (its disk is full, the container engine does not answer); such waits do not
    count as restarts.
    """

    TEMPORARY = "temporary"
    PORT_TAKEN = "port-taken"
    AGENT = "agent"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Assigned:
    """The coordinator lists the task, as `desired`."""

    desired: TaskDesired


@dataclass(frozen=True, slots=True)
class StopWanted:
    """The task is to end, for a reason of this node's; it stays known until the coordinator no longer lists it."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Unlisted:
    """The coordinator no longer lists the task: it must not run, and is forgotten once it has ended."""


@dataclass(frozen=True, slots=True)
class Started:
    """The executor has started the attempt."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The executor could not start the attempt."""

    attempt: int
    fault: StartFault
    message: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The attempt has ended."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class BackoffOver:
    """The wait after `attempt` is over."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Noted:
    """There is something to know of the living attempt, or nothing any more (""): its image is being fetched, its state
    cannot be seen."""

    attempt: int
    message: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """The agent has restarted and the executor was asked for the attempt; None: it knows of none."""

    instance: Instance | None


class ProbePurpose(Enum):
    """What a probe decides: whether the attempt goes on, or whether the task is available."""

    LIVENESS = "liveness"
    READINESS = "readiness"


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe of the attempt was tried. `passed` is its verdict by now (None: not settled), `words` say what was wrong
    with the last try ("": nothing)."""

    attempt: int
    purpose: ProbePurpose
    passed: bool | None
    words: str = ""


Event = Assigned | StopWanted | Unlisted | Started | StartFailed | Exited | BackoffOver | Noted | Probed | Adopted


# --- actions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Ask the executor to start the attempt; answer with Started or StartFailed."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Wait for the end of the attempt; answer with Exited."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the executor to end the attempt within `grace_s`."""

    attempt: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class ScheduleAt:
    """Answer with BackoffOver(attempt) at `monotonic_s`."""

    monotonic_s: float
    attempt: int


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the coordinator, under the task's new sequence."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget the task: the executor's files, the journal's entry, the reports."""


Action = Start | Watch | Stop | ScheduleAt | Report | Remove
