"""Hand what the page asks on to a coordinator, as the person; if one is gone, to the next.

What may have had its effect is asked again only if that is harmless: a read, or a change under an Idempotency-Key.
Of headers only those that mean something to the API go through, in either direction: neither the token nor a cookie
reaches a coordinator, and no Origin, because whether the page may ask is for the gate to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from cloudless.adapters.http.assets import Assets
from cloudless.adapters.http.calling import HttpCalls, Unreached
from cloudless.adapters.http.exchange import Answer, Asked, Stream
from cloudless.cli.console.coordinators import Coordinators
from cloudless.cli.console.gate import Gate, problem
from cloudless.errors import CloudlessError, TooLarge

PASSED = (
    "accept", "content-type", "idempotency-key", "if-match", "last-event-id", "request-timeout",
)  # fmt: skip
SERVED = ("/v1/", "/openapi.json", "/healthz")
READS = ("GET", "HEAD")
ROUNDS_MAX = 3
PAUSE_S = 0.15
STILL_NEEDED_S = 10.0
STATUS_NOT_NOW = 503
T = TypeVar("T")


class Proxy:
    """Answers the browser. `coordinators` says who is asked."""

    def __init__(self, gate: Gate, calls: HttpCalls, coordinators: Coordinators, assets: Assets | None = None) -> None:
        self._gate, self._calls, self._coordinators = gate, calls, coordinators
        self._assets = assets or Assets()
        self._asked_s = -STILL_NEEDED_S
        self._streams = 0

    @property
    def needed(self) -> bool:
        """Return whether anybody looks at the page."""
        return self._streams > 0 or asyncio.get_running_loop().time() - self._asked_s < STILL_NEEDED_S

    async def answer(self, asked: Asked) -> Answer | Stream:
        """Answer a file of the page, or what a coordinator answers."""
        if not asked.path.startswith(SERVED):
            return self._gate.refuse_page(asked) or self._find_file(asked)
        refusal = self._gate.refuse(asked)
        if refusal is not None:
            return refusal
        self._asked_s = asyncio.get_running_loop().time()
        try:
            body = await asked.read()
        except CloudlessError as error:
            return problem(413 if isinstance(error, TooLarge) else 400, error.code, error.message)
        return await self._hand_on(asked, body)

    def _find_file(self, asked: Asked) -> Answer:
        found = self._assets.find(asked)
        if found is None:
            return problem(404, "not-found", "there is nothing of the console at this path")
        return found if asked.verb in READS else problem(405, "wrong-verb", "files are read only")

    async def _hand_on(self, asked: Asked, body: bytes) -> Answer | Stream:
        repeatable = asked.verb in READS or "idempotency-key" in asked.headers
        why = "no coordinator's HTTP address is known yet"
        for attempt in range(ROUNDS_MAX):
            if attempt:
                await asyncio.sleep(PAUSE_S * attempt)
            order = self._coordinators.in_order()
            for address in order:
                try:
                    answer = await self._ask(address, asked, body)
                except Unreached as error:
                    why = str(error)
                    self._coordinators.give_up(address)
                    if error.sent and not repeatable:
                        return problem(504, "commit-uncertain", why, "it may have happened: look before you repeat it")
                    continue
                last = address == order[-1]
                if isinstance(answer, Answer) and answer.status == STATUS_NOT_NOW and repeatable and not last:
                    continue
                if isinstance(answer, Stream) or answer.status < 500:
                    self._coordinators.prefer(address)
                return answer
        return problem(503, "unavailable", f"no coordinator answers: {why}", "is the cluster running?", retryable=True)

    async def _ask(self, address: str, asked: Asked, body: bytes) -> Answer | Stream:
        headers = {name: asked.headers[name] for name in PASSED if name in asked.headers}
        target = asked.path + (f"?{asked.query}" if asked.query else "")
        lost = self._coordinators.lost(address)
        answer = await _unless(lost, self._calls.ask(address, asked.verb, target, headers, body))
        if answer is None:
            raise Unreached(f"{address} does not answer any more", sent=True)
        if isinstance(answer, Answer):
            return answer
        self._streams += 1
        close = answer.close

        async def end() -> None:
            self._streams -= 1
            await close()

        return replace(answer, pieces=_until(lost, answer.pieces), close=end)


async def _unless(lost: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what `work` returns, None if `lost` is set before; then it is broken off."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(lost.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, waiting):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait((working, waiting))


async def _until(lost: asyncio.Event, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield pieces until there are no more, or the coordinator they come from is lost."""

    async def next_piece() -> bytes:
        return await anext(pieces, b"")

    while piece := await _unless(lost, next_piece()):
        yield piece
