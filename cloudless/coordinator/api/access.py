"""How every service reads and writes: consistency on the way in, request ids and retries on the way out.

Reads wait until this coordinator's state is as fresh as the caller asks. Writes are decided by a pure
function from the state at hand; if an object moved meanwhile, or the state turns out to be old, they are
decided again from a newer one. A write is answered when it is durable and visible here, so the caller
reads its own writes at the returned revision on any coordinator.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import Message

from cloudless.coordinator.api.caller import current_actor
from cloudless.coordinator.change_trace import carrying_trace
from cloudless.coordinator.commit import Committed, Committer, PreconditionFailed, with_request
from cloudless.coordinator.leases import RecordLeases, RollingLease
from cloudless.coordinator.replica import Replica
from cloudless.core import keys
from cloudless.core.model import EventRecord, RequestRecord, Severity
from cloudless.core.plan import Change, PutRecord
from cloudless.core.state import View
from cloudless.errors import (
    Conflict,
    InvalidSpec,
    LeaseLost,
    NotFound,
    Problem,
    Stale,
    Unavailable,
    UserError,
)
from cloudless.observability import tracing
from cloudless.observability.fields import bind
from cloudless.ports import Clock, Ids
from cloudless.rpc.v1 import common_pb2 as pb

DEADLINE_S = 10.0
DEADLINE_MAX_S = 60.0
DEADLINE_MARGIN_S = 0.1
"""Kept for the answer's way back: a caller whose own deadline is first never learns why."""
BOUNDED_STALENESS_S = 1.0
LOOKUP_TIMEOUT_S = 2.0
SELECTOR_TERMS_MAX = 64
SELECTOR_LENGTH_MAX = 253
PAGE_SIZE = 500
PAGE_SIZE_MAX = 5000


@dataclass(frozen=True, slots=True)
class Decided:
    """What a mutation comes to: the change (None: nothing to do) and the answer to remember with it."""

    change: Change | None
    answer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """A mutation's answer and revision, whether done now or by an earlier request of the same id."""

    answer: dict[str, Any]
    revision: int


class Access:
    """Reads and writes of one coordinator on behalf of callers."""

    def __init__(
        self,
        own_id: str,
        replica: Replica,
        committer: Committer,
        leases: RecordLeases,
        clock: Clock,
        ids: Ids,
        require_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`require_room` raises NoSpace while the store has no room for what users add."""
        self.own_id, self.replica, self.clock, self.ids = own_id, replica, clock, ids
        self._committer, self._leases, self._require_room = committer, leases, require_room

    @property
    def view(self) -> View:
        return self.replica.machine

    def header(self, revision: int = 0) -> pb.ResponseHeader:
        """Return what every answer says about itself; `revision` 0: the state's own."""
        machine = self.replica.machine
        queue = machine.candidates()
        staleness_s = self.replica.staleness_s
        return pb.ResponseHeader(
            cluster_id=machine.cluster.id if machine.cluster else "",
            coordinator_id=self.own_id,
            revision=revision or machine.revision,
            staleness_s=staleness_s if staleness_s != float("inf") else -1.0,
            leader_id=queue[0].record.coordinator_id if queue else "",
            term=queue[0].term if queue else 0,
        )

    # --- reading ---

    async def settle(self, read: pb.ReadOptions, context: Any) -> View:
        """Return a view as fresh as `read` asks. Raises Unavailable, Stale, InvalidSpec."""
        timeout_s = deadline_s(context)
        ends_s = self.clock.monotonic_s() + timeout_s
        if not 0 <= read.max_staleness_s < float("inf"):  # also refuses NaN, beside which nothing is stale
            raise InvalidSpec([Problem("read.max_staleness_s", "must be seconds, not negative")])
        if read.min_revision < 0:
            raise InvalidSpec([Problem("read.min_revision", "must not be negative")])
        match read.consistency:
            case pb.CONSISTENCY_STALE:
                if not self.replica.loaded.is_set():
                    raise Unavailable("this coordinator holds no state yet", hint="try again in a moment")
            case pb.CONSISTENCY_BOUNDED:
                if self.replica.staleness_s > (read.max_staleness_s or BOUNDED_STALENESS_S):
                    await self.replica.linearize(timeout_s=timeout_s)
            case _:
                await self.replica.linearize(timeout_s=timeout_s)
        if read.min_revision > self.view.revision:
            await self.replica.wait_for(read.min_revision, timeout_s=max(0.01, ends_s - self.clock.monotonic_s()))
        return self.view

    # --- writing ---

    async def write(
        self,
        options: pb.WriteOptions,
        content: bytes,
        decide: Callable[[View], Decided],
        context: Any,
        *,
        makes_room: bool = False,
    ) -> Written:
        """Decide and commit a mutation at most once. One that `makes_room` is taken even where there is none.

        `content` is what the request asks for, without its id: the same id with other content is refused. An id is
        used up by "it is so already", too: a late copy of that request must not undo what others did after the answer.
        `decide` raises UserError; it may be called several times. Raises what `Committer.commit` raises.
        """
        request_id = options.request_id or self.ids.new()
        if not keys.REQUEST_ID_PATTERN.fullmatch(request_id):
            raise InvalidSpec([Problem("options.request_id", "must be 1 to 128 of letters, digits, '.', '_' and '-'")])
        bind(request_id=request_id)
        fingerprint = hashlib.blake2b(content, digest_size=16).hexdigest()
        ends_s = self.clock.monotonic_s() + deadline_s(context)
        fresh = False
        while True:
            await self._current(self._leases.events, ends_s)
            refusal: UserError | None = None
            decided = Decided(None, {})
            try:
                decided = decide(self.view)
            except UserError as error:
                refusal = error
            change = decided.change
            if change is None:  # a refusal, and "it is so already", count only in the newest state
                if not fresh:
                    await self.replica.linearize(timeout_s=self._left_s(ends_s))
                    fresh = True
                    continue
                if refusal is not None:
                    return await self._answer_refused(options, fingerprint, refusal, ends_s)
                if not options.request_id:
                    return Written(decided.answer, self.view.revision)
                change = Change(puts=(), preconditions=(), reason="it is so already")  # its id is used up all the same
            elif not makes_room:
                self._require_room()
            request = RequestRecord(
                id=request_id, fingerprint=fingerprint, answer=json.dumps(decided.answer), at_ms=self.clock.wall_ms()
            )
            try:
                committed = await self._commit(change, request, ends_s)
            except PreconditionFailed as error:
                await self.replica.wait_for(error.revision, timeout_s=self._left_s(ends_s))
                fresh = False
                continue
            except LeaseLost:
                self._leases.forget()
                continue
            await self._see(committed.revision, ends_s)
            answer = json.loads(committed.answer) if committed.replayed else decided.answer
            return Written(answer, committed.revision)

    async def _commit(self, change: Change, request: RequestRecord, ends_s: float) -> Committed:
        lease_id = await self._current(self._leases.requests, ends_s)
        with tracing.child("commit", {"cloudless.request_id": request.id}) as span:
            whole = with_request(carrying_trace(change, tracing.current_traceparent()), request, lease_id)
            committed = await self._committer.commit(whole, request=request, timeout_s=self._left_s(ends_s))
            span.set({"cloudless.revision": committed.revision, "cloudless.replayed": committed.replayed})
            return committed

    async def _current(self, lease: RollingLease, ends_s: float) -> int:
        """Return the lease, if the store grants it while there is time: it tries longer than a caller may wait."""
        try:
            async with asyncio.timeout(self._left_s(ends_s)):
                return await lease.current()
        except TimeoutError as error:
            raise Unavailable("the store did not grant a lease in time", hint="try again in a moment") from error

    async def _see(self, revision: int, ends_s: float) -> None:
        """Wait until the write shows here; it is durable already, so a slow copy is no reason to report failure."""
        try:
            await self.replica.wait_for(revision, timeout_s=min(2.0, self._left_s(ends_s)))
        except Stale:
            return

    def _left_s(self, ends_s: float) -> float:
        left_s = ends_s - self.clock.monotonic_s()
        if left_s <= 0:
            raise Unavailable("the request could not be done in time", hint="try again under the same request id")
        return left_s

    async def _answer_refused(
        self, options: pb.WriteOptions, fingerprint: str, refusal: UserError, ends_s: float
    ) -> Written:
        """Answer a request that is refused now: as the first time if it was done before.

        An earlier try is often why the object is gone, or is not at `if_revision` any more.
        """
        if options.request_id:
            found = await self._committer.find_done(
                options.request_id, fingerprint, timeout_s=min(LOOKUP_TIMEOUT_S, self._left_s(ends_s))
            )
            if found is not None:
                return Written(json.loads(found.answer), found.revision)
        raise refusal

    def event(self, kind: str, subject: str, message: str) -> PutRecord:
        """Return the write of an event that tells people of a mutation, to go with it."""
        at_ms = self.clock.wall_ms()
        event_id = f"{at_ms:013d}-{self.ids.new()[:8]}"
        record = EventRecord(
            id=event_id,
            at_ms=at_ms,
            kind=kind,
            subject=subject,
            message=message,
            severity=Severity.INFO,
            source=self.own_id,
            actor=current_actor(),
        )
        return PutRecord(keys.event(event_id), record, self._leases.events.held)


def deadline_s(context: Any) -> float:
    """Return the seconds a call may take: what its caller left, within bounds."""
    left = context.time_remaining() if context is not None else None
    return DEADLINE_S if left is None else min(max(0.05, left - DEADLINE_MARGIN_S), DEADLINE_MAX_S)


def check_revision(actual: int, options: pb.WriteOptions, what: str) -> None:
    """Raise Conflict if the caller's `if_revision` is not the object's."""
    if options.if_revision and options.if_revision != actual:
        raise Conflict(
            f"{what} is at revision {actual}, not {options.if_revision}",
            hint="read it again and apply your change to that",
        )


def not_found(kind: str, name: str) -> NotFound:
    return NotFound(f"there is no {kind} {name}", hint=f"see cloudless {kind} list")


def content_of(request: Any) -> bytes:
    """Return what a request with WriteOptions asks for, without its id."""
    bare: Message = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("options")
    content: bytes = bare.SerializeToString(deterministic=True)
    return request.DESCRIPTOR.name.encode() + b"\0" + content


def with_puts(change: Change, *puts: PutRecord) -> Change:
    return replace(change, puts=(*change.puts, *puts))


def read_selector(selector: Mapping[str, str], field: str = "selector") -> dict[str, str]:
    """Return the terms of a request's selector, or raise InvalidSpec: no object has more labels, nor longer ones."""
    if len(selector) > SELECTOR_TERMS_MAX:  # counted before it is copied
        raise InvalidSpec([Problem(field, f"has {len(selector)} terms; at most {SELECTOR_TERMS_MAX} are taken")])
    terms = dict(selector)
    long = [name for name, value in sorted(terms.items()) if max(len(name), len(value)) > SELECTOR_LENGTH_MAX]
    if long:
        raise InvalidSpec(
            [
                Problem(f"{field}[{name[:40]!r}]", f"name and value have at most {SELECTOR_LENGTH_MAX} characters")
                for name in long
            ]
        )
    return terms


def paginate(names: list[str], page_token: str, limit: int) -> tuple[list[str], str]:
    """Return the sorted names of one page and the next page's token ("" at the end)."""
    if limit < 0:
        raise InvalidSpec([Problem("limit", "must not be negative")])
    size = min(limit or PAGE_SIZE, PAGE_SIZE_MAX)
    rest = [name for name in sorted(names) if name > page_token]
    page = rest[:size]
    return page, page[-1] if len(rest) > size else ""
