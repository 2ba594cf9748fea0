"""The addresses that seeds stand for, kept as fresh as they are asked for.

Nothing is asked until someone refreshes, and then only what is due: an answer holds for its TTL, within bounds; a
failed question is asked again after a growing pause. A seed's addresses change only by another answer that names
some: neither silence, nor an error, nor "no such name" takes away what was known. What a name does not stand for any
more does no harm beyond a failed dial; a cluster nobody finds does.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from cloudless.adapters.discovery.lookup import Found, Kind, Lookup, LookupFailed, Record
from cloudless.core.discovery.addresses import is_ip, join_address
from cloudless.core.discovery.endpoints import Endpoint, merge_endpoints
from cloudless.core.discovery.seeds import Seed, SeedKind
from cloudless.ports import Clock

TTL_MIN_S = 2.0
TTL_MAX_S = 300.0
# That there is nothing yet is asked again soon: whoever waits for the first address must not wait for minutes.
TTL_EMPTY_MAX_S = 10.0
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 5.0
TARGETS_MAX = 32
"""SRV records followed; a cluster has at most seven coordinators that vote."""
ENDPOINTS_MAX = 64


@dataclass(slots=True)
class _Question:
    """What one question was answered last, and when it is to be asked again."""

    records: tuple[Record, ...] = ()
    due_s: float = -math.inf
    failures: int = 0
    problem: str = ""


@dataclass(slots=True)
class _Held:
    """What one seed stands for now, and why that is not fresh."""

    endpoints: tuple[Endpoint, ...] = ()
    problem: str = ""
    questions: set[tuple[str, Kind]] = field(default_factory=set)


class SeedResolver:
    """The endpoints of `seeds`. `refresh` may be called by several at once."""

    def __init__(self, seeds: Iterable[Seed], lookup: Lookup, clock: Clock) -> None:
        self.seeds = tuple(seeds)
        self._lookup, self._clock = lookup, clock
        self._questions: dict[tuple[str, Kind], _Question] = {}
        self._held = {seed: _Held(endpoints=_given(seed)) for seed in self.seeds}
        self._refreshing = asyncio.Lock()

    def current(self) -> tuple[Endpoint, ...]:
        """Return what the seeds stand for by the last answers, each address once."""
        return tuple(merge_endpoints((e for held in self._held.values() for e in held.endpoints), ()))[:ENDPOINTS_MAX]

    def problems(self) -> dict[str, str]:
        """Return by seed, as it is written, why it could not be resolved last time."""
        return {str(seed): held.problem for seed, held in self._held.items() if held.problem}

    def unknown(self) -> dict[str, str]:
        """Return the seeds that stand for nothing yet, with the reason."""
        return {str(seed): held.problem or "not asked yet" for seed, held in self._held.items() if not held.endpoints}

    def pause_s(self) -> float:
        """Return the seconds until something is due, infinite if nothing ever will be."""
        if any(seed.kind is not SeedKind.ADDRESS and not self._held[seed].questions for seed in self.seeds):
            return 0.0
        due_s = (self._questions[key].due_s for held in self._held.values() for key in held.questions)
        return max(0.0, min(due_s, default=math.inf) - self._clock.monotonic_s())

    async def refresh(self) -> bool:
        """Ask what is due; return whether the endpoints changed. Takes a few seconds at most; never raises."""
        async with self._refreshing:
            before = self.current()
            await asyncio.gather(*(self._resolve(seed) for seed in self.seeds if seed.kind is not SeedKind.ADDRESS))
            used = {key for held in self._held.values() for key in held.questions}
            self._questions = {key: question for key, question in self._questions.items() if key in used}
            return self.current() != before

    async def _resolve(self, seed: Seed) -> None:
        held, asked = self._held[seed], set[tuple[str, Kind]]()
        match seed.kind:
            case SeedKind.SRV:
                services = await self._ask(seed.host, Kind.SRV, asked)
                services = tuple(sorted(services, key=lambda r: (r.priority, -r.weight, r.host)))[:TARGETS_MAX]
                targets = await asyncio.gather(*(self._ask_addresses(r.host, asked) for r in services))
                found = [
                    Endpoint(join_address(host, record.port), record.priority, record.weight)
                    for record, hosts in zip(services, targets, strict=True)
                    for host in hosts
                ]
            case SeedKind.DNS:
                hosts = await self._ask_addresses(seed.host, asked)
                found = [Endpoint(join_address(host, seed.port)) for host in hosts]
            case _:
                records = await self._ask(seed.host, Kind.MACHINE, asked)
                # One address: the name says more than it does, to people and to whoever dials it after it has moved.
                hosts = [record.host for record in records] if len(records) > 1 else [seed.host]
                found = [Endpoint(join_address(host, seed.port)) for host in hosts]
        problems = sorted({f"{name}: {why}" for name, kind in asked if (why := self._questions[name, kind].problem)})
        if not found and not problems:
            problems = [f"{seed.host}: it has no {'SRV' if seed.kind is SeedKind.SRV else 'A or AAAA'} records"]
        if found:
            held.endpoints = tuple(dict.fromkeys(found))
        held.problem, held.questions = "; ".join(problems), asked

    async def _ask_addresses(self, name: str, asked: set[tuple[str, Kind]]) -> list[str]:
        if is_ip(name):
            return [name]
        families = await asyncio.gather(*(self._ask(name, kind, asked) for kind in (Kind.A, Kind.AAAA)))
        return sorted({record.host for records in families for record in records})

    async def _ask(self, name: str, kind: Kind, asked: set[tuple[str, Kind]]) -> tuple[Record, ...]:
        """Return the records by the last answer, asked again if that is due."""
        asked.add((name, kind))
        question = self._questions.setdefault((name, kind), _Question())
        now_s = self._clock.monotonic_s()
        if question.due_s > now_s:
            return question.records
        try:
            found: Found = await self._lookup.ask(name, kind)
        except LookupFailed as error:
            pause_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(question.failures, 16))
            question.failures += 1
            question.problem = str(error)
        else:
            pause_s = min(max(found.ttl_s, TTL_MIN_S), TTL_MAX_S if found.records else TTL_EMPTY_MAX_S)
            question.records, question.failures, question.problem = found.records, 0, ""
        question.due_s = self._clock.monotonic_s() + pause_s
        return question.records


def _given(seed: Seed) -> tuple[Endpoint, ...]:
    """Return what a seed stands for before anything was asked: itself, as far as it can be dialled."""
    if seed.kind in (SeedKind.ADDRESS, SeedKind.NAME):
        return (Endpoint(join_address(seed.host, seed.port)),)
    return ()
