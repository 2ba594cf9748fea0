"""Every error cloudless raises, named by whose fault it is.

One table (`OUTCOMES`) maps a class to its gRPC status, HTTP status, command-line exit code and
metric label, so that a failure looks the same whichever door it leaves by. Errors of libraries are
translated at the edge, with `from`; nothing in cloudless matches on message text of its own errors.

`retryable` means: the same request, sent again unchanged (writes under the same request id), may succeed.
`hint` names the cure in words for a person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar


class CloudlessError(Exception):
    """Root of all typed errors."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


# --- the caller's fault -------------------------------------------------------------------------


class UserError(CloudlessError):
    """The request is wrong; sending it again unchanged cannot help."""

    code = "user-error"


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a request: the field's path (`spec.replicas`), what is wrong and what would be right."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidSpec(UserError):
    """A specification or argument was refused; `problems` lists all faults found, not only the first."""

    code = "invalid-spec"

    def __init__(self, problems: tuple[Problem, ...] | list[Problem], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(p) for p in self.problems) or "invalid", hint=hint)


class NotFound(UserError):
    code = "not-found"


class AlreadyExists(UserError):
    code = "already-exists"


class Conflict(UserError):
    """The object changed since the caller read it (`--if-revision`), or an id was used for something else."""

    code = "conflict"


class Denied(UserError):
    code = "denied"


class Unauthenticated(UserError):
    """The caller has shown no identity, or one that this cluster does not know."""

    code = "unauthenticated"


class WrongVerb(UserError):
    """This path is there, but not for this verb of HTTP."""

    code = "wrong-verb"


class TooLarge(UserError):
    """The request exceeds a stated limit (bytes, objects, depth)."""

    code = "too-large"


class HistoryGone(UserError):
    """A watch asked to resume from a revision that is no longer kept: list again, then watch from there."""

    code = "history-gone"


# --- the cluster's state ------------------------------------------------------------------------


class Unavailable(CloudlessError):
    """The cluster cannot answer now; nothing was done, or doing it again is safe."""

    code = "unavailable"
    retryable = True


class NotLeader(Unavailable):
    code = "not-leader"


class NoQuorum(Unavailable):
    code = "no-quorum"


class StoreTimeout(Unavailable):
    code = "store-timeout"


class AgentUnreachable(Unavailable):
    code = "agent-unreachable"


class RateLimited(Unavailable):
    """Too many tries from one place, or at all: wait a little."""

    code = "rate-limited"


class Stale(Unavailable):
    """The coordinator's state is older than the caller allows."""

    code = "stale"


class NoSpace(CloudlessError):
    """The store's quota is used up: reads work, writes are refused until space is made."""

    code = "no-space"


class Fenced(CloudlessError):
    """A write of an ended term: another leader holds a newer one. The writer must step down."""

    code = "fenced"


class CommitUncertain(CloudlessError):
    """A write got no answer: it may or may not have happened. Safe to repeat under the same request id."""

    code = "commit-uncertain"
    retryable = True


class Compacted(CloudlessError):
    """The store no longer has the revision asked for: read everything afresh.

    `compact_revision` is the oldest revision that can still be read.
    """

    code = "compacted"

    def __init__(self, compact_revision: int) -> None:
        self.compact_revision = compact_revision
        super().__init__(f"history before revision {compact_revision} is compacted")


class LeaseLost(CloudlessError):
    code = "lease-lost"


# --- executors ----------------------------------------------------------------------------------


class ExecutorError(CloudlessError):
    code = "executor"


class Temporary(ExecutorError):
    """Trying the same start again may work."""

    code = "executor-temporary"
    retryable = True


class ExecutorAway(Temporary):
    """What runs the task cannot be asked now. That is no fault of the task, and waiting for it no restart."""

    code = "executor-away"


class Permanent(ExecutorError):
    """This task can never start on this node as it is."""

    code = "executor-permanent"


class ImageMissing(Permanent):
    code = "image-missing"


class PortTaken(ExecutorError):
    code = "port-taken"


# --- starting a process -------------------------------------------------------------------------


class StartupError(CloudlessError):
    """The process cannot start as configured; it exits with a message that names the cure."""

    code = "startup"


class BadSettings(StartupError):
    """Configuration was refused; `problems` lists every fault."""

    code = "bad-settings"

    def __init__(self, problems: tuple[Problem, ...] | list[Problem], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(p) for p in self.problems), hint=hint)


class DataDirLocked(StartupError):
    code = "data-dir-locked"


class PortInUse(StartupError):
    code = "port-in-use"


class EtcdRefused(StartupError):
    code = "etcd-refused"


class MemberFailed(StartupError):
    code = "member-failed"


class MemberRemoved(StartupError):
    code = "member-removed"


class DataLost(StartupError):
    code = "data-lost"


class FormationRefused(StartupError):
    """Forming or joining would create a second cluster, or contradicts what the others say."""

    code = "formation-refused"


class VersionRefused(StartupError):
    """This version may not run in a cluster of that feature level; see `core.versions`."""

    code = "version-refused"


# --- backups and recovery -----------------------------------------------------------------------


class BackupError(CloudlessError):
    """A backup cannot be made or used as asked; nothing was changed."""

    code = "backup"


class CorruptBackup(BackupError):
    """The file is no backup, is cut off, or was changed: nothing of it is used."""

    code = "corrupt-backup"


class WrongKey(BackupError):
    """The backup is encrypted, and what was given is not its key (or nothing was given)."""

    code = "wrong-key"


class UnprovenBackup(BackupError):
    """A member made from the backup does not hold the state that the backup says it holds."""

    code = "unproven-backup"


class TargetFailed(BackupError):
    """The directory or bucket for backups cannot be used."""

    code = "target-failed"


class ToolMissing(BackupError):
    """A program that comes with etcd is needed and not there."""

    code = "tool-missing"


class NoRoom(BackupError):
    """The disk has not enough room for what would be written."""

    code = "no-room"


class DataDirInUse(BackupError):
    """The data directory holds something that must not be overwritten, or its coordinator runs."""

    code = "data-dir-in-use"


class RecoveryRefused(BackupError):
    """Rebuilding a cluster from this survivor could lose writes, or make two clusters of one."""

    code = "recovery-refused"


class WrongAuthority(StartupError):
    """The cluster that was reached is not the one the token is for: nothing secret was sent."""

    code = "wrong-authority"


class BadCredentials(StartupError):
    """The identity on disk cannot be used: unreadable, incomplete, of another key or cluster, or expired."""

    code = "bad-credentials"


class RolloutFailed(CloudlessError):
    """What was waited for did not come: the rollout failed, was rolled back, or another change took its place."""

    code = "rollout-failed"


class InvariantBroken(CloudlessError):
    """A bug in cloudless: a stated invariant does not hold. Never caught except to report it."""

    code = "invariant-broken"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an error class looks from outside. `grpc_status` is the name of a gRPC status code."""

    grpc_status: str
    http_status: int
    exit_code: int


# error class            gRPC status            HTTP  exit
OUTCOMES: dict[type[CloudlessError], Outcome] = {
    CloudlessError: Outcome("INTERNAL", 500, 70),
    UserError: Outcome("INVALID_ARGUMENT", 400, 2),
    InvalidSpec: Outcome("INVALID_ARGUMENT", 400, 2),
    TooLarge: Outcome("RESOURCE_EXHAUSTED", 413, 2),
    NotFound: Outcome("NOT_FOUND", 404, 4),
    WrongVerb: Outcome("UNIMPLEMENTED", 405, 2),
    AlreadyExists: Outcome("ALREADY_EXISTS", 409, 5),
    Conflict: Outcome("ABORTED", 409, 5),
    HistoryGone: Outcome("OUT_OF_RANGE", 410, 5),
    Denied: Outcome("PERMISSION_DENIED", 403, 6),
    Unauthenticated: Outcome("UNAUTHENTICATED", 401, 6),
    Unavailable: Outcome("UNAVAILABLE", 503, 3),
    RateLimited: Outcome("RESOURCE_EXHAUSTED", 429, 3),
    NoSpace: Outcome("RESOURCE_EXHAUSTED", 507, 3),
    Fenced: Outcome("FAILED_PRECONDITION", 409, 3),
    CommitUncertain: Outcome("DEADLINE_EXCEEDED", 504, 3),
    Compacted: Outcome("OUT_OF_RANGE", 410, 3),
    LeaseLost: Outcome("UNAVAILABLE", 503, 3),
    ExecutorError: Outcome("FAILED_PRECONDITION", 409, 7),
    StartupError: Outcome("FAILED_PRECONDITION", 500, 8),
    BackupError: Outcome("FAILED_PRECONDITION", 500, 9),
    RolloutFailed: Outcome("FAILED_PRECONDITION", 409, 10),
    InvariantBroken: Outcome("INTERNAL", 500, 70),
}


def outcome_of(error: type[CloudlessError]) -> Outcome:
    """Return the outcome of the nearest class of `error` that the table lists."""
    return next(OUTCOMES[base] for base in error.__mro__ if base in OUTCOMES)


def all_errors() -> Iterator[type[CloudlessError]]:
    """Yield every typed error class, parents first, each once."""
    queue: list[type[CloudlessError]] = [CloudlessError]
    while queue:
        error = queue.pop(0)
        yield error
        queue.extend(error.__subclasses__())


def error_with_code(code: str) -> type[CloudlessError]:
    """Return the class that carries `code`, or CloudlessError for one this version does not know."""
    return next((error for error in all_errors() if error.code == code), CloudlessError)
