"""EventService: events for people, and a watch on all changes for programs.

A watch delivers every change from a revision on, whole revisions in order, first from the coordinator's
memory of recent changes, then as they come. It holds a bounded queue: whoever reads too slowly is told
so and may resume from the last revision it has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from cloudless.coordinator.api.access import Access, deadline_s
from cloudless.core.keys import CONFIDENTIAL, Kind
from cloudless.core.state import Applied, Transition
from cloudless.errors import HistoryGone, InvalidSpec, Problem, TooLarge
from cloudless.rpc import codec
from cloudless.rpc.v1 import event_pb2 as pb
from cloudless.rpc.v1 import objects_pb2

EVENTS_SHOWN = 100
EVENTS_SHOWN_MAX = 1000
QUEUE_LENGTH_MAX = 10_000
SIGN_OF_LIFE_S = 5.0
SIGN_OF_LIFE_MIN_S, SIGN_OF_LIFE_MAX_S = 0.2, 60.0
CATCH_UP_TIMEOUT_S = 5.0


class Events:
    """EventService."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def ListEvents(self, request: pb.ListEventsRequest, context: Any) -> pb.ListEventsResponse:
        if not 0 <= request.limit <= EVENTS_SHOWN_MAX:
            raise InvalidSpec([Problem("limit", f"must be from 0 to {EVENTS_SHOWN_MAX}")])
        view = await self._access.settle(request.read, context)
        chosen = [event for event in view.events.values() if request.subject in ("", event.subject)]
        chosen.sort(key=lambda event: event.id)
        shown = chosen[-(request.limit or EVENTS_SHOWN) :]
        return pb.ListEventsResponse(
            header=self._access.header(), events=[codec.to_message(event, objects_pb2.EventRecord) for event in shown]
        )

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchResponse]:
        kinds = _parse_kinds(request)
        if request.from_revision < 0:
            raise InvalidSpec([Problem("from_revision", "must not be negative")])
        sign_of_life_s = _read_sign_of_life(request)
        replica = self._access.replica
        await replica.loaded.wait()
        # The watcher may come from a coordinator that was further on: what it has must not be told again.
        await replica.wait_for(request.from_revision - 1, timeout_s=min(CATCH_UP_TIMEOUT_S, deadline_s(context)))
        queue, resets = _Queue(), self._access.replica.resets_total
        past, delivered = self._past(request.from_revision), self._access.view.revision
        stop_listening = replica.listen(queue.put)
        try:
            for applied in past:
                response = self._response(applied, kinds)
                if response.changes:
                    yield response
            yield pb.WatchResponse(header=self._access.header(delivered), revision=delivered)
            while True:
                news = await queue.get(sign_of_life_s)
                if self._access.replica.resets_total != resets:  # what came between is known as a difference only
                    raise HistoryGone("the state was read afresh", hint="list afresh and watch from there")
                if news is None:
                    yield pb.WatchResponse(header=self._access.header(), revision=delivered)
                    continue
                if news.revision < delivered:
                    raise HistoryGone("the store was restored", hint="list afresh and watch from there")
                response = self._response(news, kinds)
                delivered = news.revision
                if response.changes:
                    yield response
        finally:
            stop_listening()

    def _past(self, from_revision: int) -> list[Applied]:
        if from_revision == 0:
            return []
        past = self._access.replica.find_history(from_revision)
        if past is None:
            raise HistoryGone(
                f"changes since revision {from_revision} are no longer kept", hint="list afresh and watch from there"
            )
        return past

    def _response(self, applied: Applied, kinds: frozenset[Kind]) -> pb.WatchResponse:
        changes = [_to_change(t) for t in applied.transitions if t.kind in kinds]
        return pb.WatchResponse(
            header=self._access.header(applied.revision), changes=changes, revision=applied.revision
        )


class _Queue:
    """Changes on their way to one watcher, bounded."""

    def __init__(self) -> None:
        self._items: deque[Applied] = deque()
        self._length = 0
        self._overflowed = False
        self._arrived = asyncio.Event()

    def put(self, applied: Applied) -> None:
        if not applied.transitions or self._overflowed:
            return
        self._length += len(applied.transitions)
        self._overflowed = self._length > QUEUE_LENGTH_MAX
        if self._overflowed:
            self._items.clear()
        else:
            self._items.append(applied)
        self._arrived.set()

    async def get(self, timeout_s: float) -> Applied | None:
        """Return the next batch, None after `timeout_s` without one. Raises TooLarge for a slow reader."""
        if not self._items and not self._overflowed:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        if self._overflowed:
            raise TooLarge(
                f"more than {QUEUE_LENGTH_MAX} changes wait to be read",
                hint="read faster; resume from your last revision",
            )
        applied = self._items.popleft()
        self._length -= len(applied.transitions)
        return applied


def _parse_kinds(request: pb.WatchRequest) -> frozenset[Kind]:
    known = {kind.value: kind for kind in Kind if kind not in CONFIDENTIAL}
    if len(request.kinds) > len(Kind):
        raise InvalidSpec([Problem("kinds", f"has {len(request.kinds)} entries; there are {len(known)} kinds")])
    unknown = sorted(set(request.kinds) - known.keys())
    if unknown:
        raise InvalidSpec([Problem("kinds", f"{unknown[0][:40]!r} is not one of {', '.join(sorted(known))}")])
    return frozenset(known[name] for name in request.kinds) or frozenset(Kind) - CONFIDENTIAL - {Kind.REQUEST}


def _read_sign_of_life(request: pb.WatchRequest) -> float:
    asked_s = float(request.sign_of_life_s)
    if asked_s and not SIGN_OF_LIFE_MIN_S <= asked_s <= SIGN_OF_LIFE_MAX_S:  # also refuses NaN
        text = f"must be seconds, 0 or from {SIGN_OF_LIFE_MIN_S:g} to {SIGN_OF_LIFE_MAX_S:g}"
        raise InvalidSpec([Problem("sign_of_life_s", text)])
    return asked_s or SIGN_OF_LIFE_S


def _to_change(transition: Transition) -> pb.Change:
    return pb.Change(
        key=transition.key,
        kind=transition.kind.value if transition.kind else "",
        revision=transition.mod_revision,
        deleted=transition.after is None,
        record=codec.to_stored(transition.after) if transition.after is not None else None,
    )
