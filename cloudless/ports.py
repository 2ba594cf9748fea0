"""The seams between decisions and the world: small Protocols, each with a fake that passes the same contract suite.

`Store` is etcd's data model reduced to what cloudless relies on: one revision counter for all keys,
transactions with compares and nested transactions, leases, and watches that start at any revision
still kept. Its semantics are etcd's (v3 API); `cloudless.testing.MemoryStore` imitates them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

from cloudless.core.model import Instance, TaskSpec
from cloudless.core.usage import Usage

# --- identity -----------------------------------------------------------------------------------


class Credentials(Protocol):
    """What one party proves itself by: its own key and certificate chain, and the CAs that sign the other parties'."""

    @property
    def key_pem(self) -> bytes: ...

    @property
    def chain_pem(self) -> bytes: ...

    @property
    def roots_pem(self) -> bytes: ...


CredentialSource = Callable[[], Credentials]
"""Returns the credentials of now: certificates are renewed while processes run. Equal ones may be the same object."""

# --- store --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A stored value. `create_revision` stays for a key's life, `mod_revision` is its last write's revision."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease_id: int = 0


class Target(Enum):
    """What of a key a compare looks at. A missing key has CREATE 0 and MOD 0."""

    CREATE = "create"
    MOD = "mod"


class Relation(Enum):
    EQUAL = "="
    NOT_EQUAL = "!="
    GREATER = ">"
    LESS = "<"


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition `target(key) relation revision`."""

    key: str
    target: Target
    relation: Relation
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease_id: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class Get:
    key: str


@dataclass(frozen=True, slots=True)
class Txn:
    """If all `compares` hold, run `then`, else `orelse`; operations may be transactions themselves.

    All compares, nested ones too, look at the state before the whole transaction. No key may be put twice in
    one transaction, or put and deleted, nested ones included: the store refuses that as InvariantBroken.
    """

    compares: tuple[Compare, ...] = ()
    then: tuple[Put | Delete | Get | Txn, ...] = ()
    orelse: tuple[Put | Delete | Get | Txn, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """Answer to a Put or Delete; `deleted` counts keys removed."""

    deleted: int = 0


@dataclass(frozen=True, slots=True)
class Got:
    """Answer to a Get; None if there is no such key."""

    kv: KeyValue | None


@dataclass(frozen=True, slots=True)
class TxnResult:
    """`revision` is the store's after the transaction; equal to the written keys' mod revision if it wrote."""

    succeeded: bool
    revision: int
    results: tuple[Done | Got | TxnResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a range at one fixed revision. `more`: ask again from `kvs[-1].key`, exclusive."""

    kvs: tuple[KeyValue, ...]
    revision: int
    more: bool
    cluster_id: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One key's change at `kv.mod_revision`. For a deletion `kv.value` is empty and `deleted` is true."""

    kv: KeyValue
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Changes of whole revisions, oldest first, complete up to `revision`; no events: a progress mark."""

    revision: int
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """A granted lease; `ttl_s` is what the store granted, which may be more than was asked."""

    id: int
    ttl_s: int


class WatchStream(Protocol):
    """An open watch: iterate to get every change once, in order, whole revisions at a time.

    Iterating raises Compacted if the start is no longer kept, Unavailable if the stream broke or its
    member lost the cluster's leader. It never ends by itself; `close` ends it for whoever iterates.
    """

    def __aiter__(self) -> AsyncIterator[WatchBatch]: ...

    async def request_progress(self) -> None:
        """Ask for a progress mark now. It comes as a batch without events, or not at all if the stream is broken."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Store(Protocol):
    """etcd's v3 data model. All methods raise Unavailable (read, or write surely not done), CommitUncertain
    (write that may have been done), NoSpace, and the errors they name."""

    async def txn(self, txn: Txn, *, timeout_s: float) -> TxnResult:
        """Run a transaction. Raises CommitUncertain if no answer came in time: it may still happen."""
        ...

    async def read_page(
        self, prefix: str, *, start_after: str = "", revision: int = 0, limit: int = 5000, timeout_s: float = 5.0
    ) -> Page:
        """Return up to `limit` keys under `prefix` after `start_after` in key order.

        `revision` 0 reads the newest state, linearizably; pages that follow must name the first page's
        revision. Raises Compacted.
        """
        ...

    async def current_revision(self, *, timeout_s: float) -> int:
        """Return a revision at least as new as every write acknowledged before the call (a linearizable read)."""
        ...

    def watch(self, prefix: str, *, start_revision: int) -> WatchStream:
        """Open a watch on every change under `prefix` from `start_revision` (> 0) on."""
        ...

    async def grant(self, ttl_s: int, *, timeout_s: float) -> Lease:
        """Grant a lease of at least `ttl_s` seconds."""
        ...

    async def keep_alive(self, lease_id: int, *, timeout_s: float) -> int:
        """Renew a lease; return its TTL in seconds. Raises LeaseLost if it has expired or was revoked."""
        ...

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        """End a lease and delete its keys; a lease that is gone already is no error."""
        ...

    async def compact(self, revision: int, *, timeout_s: float) -> None:
        """Forget history before `revision`."""
        ...

    async def close(self) -> None: ...


# --- time and names -----------------------------------------------------------------------------


class Clock(Protocol):
    """Time, as the runtime hands it to the core."""

    def monotonic_s(self) -> float:
        """Seconds that never jump and count while the machine sleeps (CLOCK_BOOTTIME)."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970, for people only: no decision depends on it."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    """Fresh random names."""

    def new(self) -> str:
        """Return 16 random hex digits or more."""
        ...


# --- executor -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """One attempt at a task. `ports` are the resolved numbers by name, on the node; `labels` say whose task it is."""

    task_id: str
    attempt: int
    spec: TaskSpec
    env: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of a task's output. `stream` is `stdout` or `stderr`.

    `attempt` wrote it, at `at_ms` by the node's wall clock, to a tenth of a second (0: not asked for, or not known).
    """

    stream: str
    data: bytes
    attempt: int = 0
    at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """What of a task's output is wanted: its last `tail_lines` lines (-1: all kept), then as it grows if `follow`.

    With `since_ms` (wall clock) nothing that was written before, as far as that is known; `timestamps`: say when.
    """

    tail_lines: int = -1
    follow: bool = False
    since_ms: int = 0
    timestamps: bool = False


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """In characters."""

    columns: int = 80
    rows: int = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A command to run beside a living attempt, in its surroundings: same user, environment, directory and limits.

    `attempt` is what the attempt was started with. With `stdin` the command reads what `Execution.write` is given, else
    nothing. With `terminal` it gets a terminal of that size; all its output is then `stdout`.
    """

    attempt: StartRequest
    command: tuple[str, ...]
    stdin: bool = False
    terminal: TerminalSize | None = None


class Execution(Protocol):
    """A command under way beside an attempt."""

    def output(self) -> AsyncGenerator[LogChunk, None]:
        """Yield its output to the end, once. What is not taken holds the command up; nothing piles up."""
        ...

    async def write(self, data: bytes) -> None:
        """Give it input, at the pace it reads; b"" ends the input. Input that nobody reads any more is dropped."""
        ...

    async def resize(self, size: TerminalSize) -> None:
        """Change the size of its terminal, if it has one."""
        ...

    async def wait(self) -> int:
        """Return its exit code (128 + N after signal N; 126, 127: it could not be run, the output says why).

        Comes after the end of the output. Raises NotFound if the attempt had ended before it could be started,
        ExecutorError if the executor does not know.
        """
        ...


class Executor(Protocol):
    """Starts, finds again, and ends task attempts. Instances outlive the agent."""

    name: str

    async def start(self, request: StartRequest) -> Instance:
        """Start an attempt; calling it again for a living one returns that one. Raises ExecutorError."""
        ...

    async def stop(self, task_id: str, attempt: int, *, grace_s: float) -> None:
        """Ask the attempt's whole process group to end, and end it after `grace_s`. Returns at once; see `wait`."""
        ...

    async def wait(self, task_id: str, attempt: int) -> Instance:
        """Return once the attempt has ended, with its exit code or signal, wherever the agent was. Raises NotFound."""
        ...

    async def adopt(self) -> tuple[Instance, ...]:
        """Find every attempt this executor ever started and has not removed, living or ended."""
        ...

    async def remove(self, task_id: str) -> None:
        """Forget an ended task and delete its files."""
        ...

    async def measure(self, task_ids: Collection[str]) -> Mapping[str, Usage]:
        """Return what those of the tasks use that run here; of a moment ago at most. Raises ExecutorError."""
        ...

    def read_logs(self, task_id: str, query: LogQuery) -> AsyncGenerator[LogChunk, None]:
        """Yield the newest attempt's output, then, followed, that of later ones until none is running.

        Close it (`aclosing`) when done before its end: it holds files open. Raises NotFound.
        """
        ...

    def exec(self, request: ExecRequest) -> AbstractAsyncContextManager[Execution]:
        """Run a command beside a living attempt.

        Entered once it is being started; leaving it kills the command and all it started, if they have not ended.
        Raises NotFound if the attempt does not run, Permanent for what cannot be a command, ExecutorAway or Temporary
        if it cannot be started, or ended, for a reason that is not the command's.
        """
        ...
