"""Answer HTTP from the handlers that serve gRPC: find the route, let the door judge the caller, make the request, call,
and tell the answer or the error as JSON. A watch is told as events.

Door, handlers, errors, counters and deadlines are those of gRPC. What is bounded here: calls and streams at once,
bodies, and the time of a call that nobody gave a deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from google.protobuf.message import Message
from loguru import logger

from cloudless.adapters.grpc.server import Door, Observe
from cloudless.adapters.http.assets import Assets
from cloudless.adapters.http.exchange import JSON, Answer, Asked, Caller, Stream
from cloudless.coordinator.guard import CERTIFICATE_KEY
from cloudless.coordinator.httpapi.origins import Origins
from cloudless.coordinator.httpapi.problems import describe_error, to_problem
from cloudless.coordinator.httpapi.request import build_request, read_timeout
from cloudless.coordinator.httpapi.table import Route, Router
from cloudless.coordinator.httpapi.telling import EVENT_STREAM, Telling
from cloudless.errors import (
    CloudlessError,
    CommitUncertain,
    Denied,
    InvalidSpec,
    NotFound,
    Problem,
    RateLimited,
    WrongVerb,
)
from cloudless.observability import tracing
from cloudless.observability.fields import bind
from cloudless.rpc import codec
from cloudless.rpc.json_answer import write_answer
from cloudless.rpc.packed import Packed

CALLS_MAX = 64
STREAMS_MAX = 96
STREAMS_FROM_ONE_ADDRESS_MAX = 24
CALL_MAX_S = 600.0
"""Of a call without a deadline: a backup of a large store takes minutes."""
GRACE_S = 0.5
"""Beyond its deadline, for a handler that ends by itself and says why."""
DOCUMENT_PATH = "/openapi.json"
PAGE_VERBS = ("GET", "HEAD")

Resolve = Callable[[str, str], Callable[..., Any]]
"""Finds a service's method; raises why there is none now."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the door and the handlers ask of a call's gRPC context, of one over HTTP."""

    caller: Caller
    ends_s: float | None

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {CERTIFICATE_KEY: [self.caller.certificate_pem]} if self.caller.certificate_pem else {}

    def peer(self) -> str:
        address = self.caller.address
        return f"ipv6:[{address}]:0" if ":" in address else f"ipv4:{address}:0"

    def time_remaining(self) -> float | None:
        return None if self.ends_s is None else max(0.0, self.ends_s - asyncio.get_running_loop().time())


class HttpApi:
    """The API of one coordinator, and the console's files, which anybody may read: they hold nothing.

    `pages` are paths that somebody else answers to GET; `find_revision` the state's.
    """

    def __init__(
        self,
        own_id: str,
        router: Router,
        resolve: Resolve,
        door: Door,
        build_document: Callable[[], str],
        *,
        observe: Observe = lambda method, outcome, took_s: None,
        origins: Origins | None = None,
        pages: Collection[str] = (),
        find_revision: Callable[[], int] = lambda: 0,
        console: Assets | None = None,
    ) -> None:
        self._own_id, self._router, self._resolve, self._door = own_id, router, resolve, door
        self._build_document, self._observe, self._find_revision = build_document, observe, find_revision
        self._origins, self._pages = origins or Origins(), frozenset(pages)
        self._console = console or Assets()
        self._document: asyncio.Task[str] | None = None
        self._reading = asyncio.Lock()
        self._calls = 0
        self._streams: Counter[str] = Counter()

    async def answer(self, asked: Asked) -> Answer | Stream:
        """Answer whatever is asked; errors are answers, too."""
        try:
            given = await self._answer(asked)
        except Exception as error:  # a bug must not be silence, nor an answer in another form
            told = self._translate(f"{asked.verb} {asked.path}", error)
            given = to_problem(told, self._own_id, self._find_revision())
        extra = self._origins.headers(asked)
        return replace(given, headers={**given.headers, **extra}) if extra else given

    async def _answer(self, asked: Asked) -> Answer | Stream:
        segments = tuple(unquote(part) for part in asked.path.split("/")[1:])
        route, verbs = self._router.find(asked.verb, segments)
        file = self._console.find(asked)
        if file is not None or asked.path in self._pages or asked.path == DOCUMENT_PATH:
            verbs = PAGE_VERBS
        if asked.verb == "OPTIONS" and verbs:
            return Answer(204, "", headers=self._origins.preflight(asked, verbs))
        self._origins.require_own(asked)
        if file is not None and asked.verb in PAGE_VERBS:
            return file
        if asked.path == DOCUMENT_PATH and asked.verb in PAGE_VERBS:
            return await self._show_document(asked)
        if route is None:
            return self._refuse_path(asked, verbs)
        variables = {
            pattern[1:-1]: segment
            for pattern, segment in zip(route.segments, segments, strict=True)
            if pattern.startswith("{")
        }
        # One task serves all requests of a connection: nothing of the last one is said of this one.
        bind(method=route.name, request_id=None)
        return await (self._tell if route.streams else self._call)(route, variables, asked)

    def _refuse_path(self, asked: Asked, verbs: Sequence[str]) -> Answer:
        path = asked.path[:200]
        if not verbs:
            raise NotFound(f"there is nothing at {path}", hint=f"{DOCUMENT_PATH} lists all paths")
        error = WrongVerb(f"{asked.verb[:20]} is not for {path}", hint=f"it takes {', '.join(verbs)}")
        answer = to_problem(error, self._own_id, self._find_revision())
        return replace(answer, headers={**answer.headers, "Allow": ", ".join((*verbs, "OPTIONS"))})

    async def _show_document(self, asked: Asked) -> Answer:
        if asked.secure and not asked.caller.certificate_pem:
            raise Denied("a client certificate of this cluster is needed", hint="run `cloudless login`")
        if self._document is None:
            self._document = asyncio.create_task(asyncio.to_thread(self._build_document))
        return Answer(200, await asyncio.shield(self._document), JSON)

    # --- calls ---

    async def _call(self, route: Route, variables: Mapping[str, str], asked: Asked) -> Answer:
        if self._calls >= CALLS_MAX:
            raise RateLimited(f"{CALLS_MAX} calls over HTTP are under way already", hint="ask another coordinator")
        self._calls += 1
        began_s = time.monotonic()

        def note(outcome: str) -> None:
            self._observe(route.name, outcome, time.monotonic() - began_s)

        try:
            with tracing.call_span("http", route.name, asked.headers.get(tracing.TRACEPARENT_KEY, "")):
                text, revision = await self._call_handler(route, variables, asked)
        except asyncio.CancelledError:
            note("cancelled")
            raise
        except Exception as error:
            told = self._translate(route.name, error)
            note(told.code)
            raise told from error
        finally:
            self._calls -= 1
        note("ok")
        headers = {"Cache-Control": "no-store"} | ({"ETag": f'"{revision}"'} if revision else {})
        return Answer(200, text + "\n", JSON, headers)

    async def _call_handler(self, route: Route, variables: Mapping[str, str], asked: Asked) -> tuple[str, int]:
        context, timeout_s = self._open(route, asked)
        try:
            async with asyncio.timeout(CALL_MAX_S if timeout_s is None else timeout_s + GRACE_S) as limit:
                request = await self._admit(route, variables, asked, context)
                answer = await self._resolve(route.service, route.method.name)(request, context)
                return await write_answer(answer), _find_revision(answer, route.line.revision)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise CommitUncertain("there was no answer in time", hint="ask again under the same key") from error

    def _open(self, route: Route, asked: Asked) -> tuple[Context, float | None]:
        """Return the context of a call that the door lets in, and the seconds it was given."""
        context = Context(asked.caller, None)
        self._door.enter(route.name, context)
        timeout_s = read_timeout(asked)
        ends_s = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        return replace(context, ends_s=ends_s), timeout_s

    async def _admit(self, route: Route, variables: Mapping[str, str], asked: Asked, context: Context) -> Message:
        request = await build_request(route, variables, asked, self._reading)
        self._door.check(route.name, request, context)
        return request

    def _translate(self, name: str, error: Exception) -> CloudlessError:
        """Return what a call failed with as a typed error; a bug is logged, and no silence for the caller."""
        if isinstance(error, codec.Malformed):
            return InvalidSpec([Problem("", str(error))])
        if isinstance(error, CloudlessError):
            return error
        logger.opt(exception=error).error("{} failed", name)
        return CloudlessError(f"internal error: {error!r}")

    # --- streams ---

    async def _tell(self, route: Route, variables: Mapping[str, str], asked: Asked) -> Stream:
        place = asked.caller.address
        if self._streams.total() >= STREAMS_MAX or self._streams[place] >= STREAMS_FROM_ONE_ADDRESS_MAX:
            raise RateLimited("too many streams over HTTP are open already", hint="close one, or ask another")
        self._streams[place] += 1
        telling: Telling | None = None
        try:
            telling = await self._begin(route, variables, asked)
            await telling.begin()
        except BaseException as error:
            told = self._translate(route.name, error) if isinstance(error, Exception) else None
            if telling is not None:
                await telling.close()
            else:
                self._end_stream(place, route.name, told.code if told else "cancelled")
            if told is not None and told is not error:
                raise told from error
            raise
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Stream(EVENT_STREAM, telling.pieces(), telling.close, headers)

    async def _begin(self, route: Route, variables: Mapping[str, str], asked: Asked) -> Telling:
        context, _ = self._open(route, asked)
        request = await self._admit(route, variables, asked, context)
        place = asked.caller.address
        return Telling(
            self._resolve(route.service, route.method.name)(request, context),
            lambda: self._door.check(route.name, None, context),
            lambda error: describe_error(error, self._own_id, self._find_revision()),
            lambda outcome: self._end_stream(place, route.name, outcome),
            lambda error: self._translate(route.name, error),
        )

    def _end_stream(self, place: str, method: str, outcome: str) -> None:
        self._observe(method, outcome, None)
        self._streams[place] -= 1
        if not self._streams[place]:
            del self._streams[place]


def _find_revision(answer: Message | Packed, path: str) -> int:
    """Return the revision at a dotted path of an answer, 0 for no path."""
    found: Any = answer if path else 0
    for name in path.split(".") if path else ():
        found = getattr(found, name)
    return int(found)
