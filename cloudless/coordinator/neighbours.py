"""The other coordinators, as one that does not run in a cluster yet can find them: its seeds and what it learned.

They are asked who they are before anything is asked of them (`core.discovery.answers`): an address may lead back to
this process, and a name to two clusters. What counts is what they answer, never the text of an address.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from loguru import logger

from cloudless.adapters.discovery.lookup import Lookup, NetworkLookup
from cloudless.adapters.discovery.resolver import SeedResolver
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.learned import Learned
from cloudless.adapters.member.marker import Marker
from cloudless.adapters.member.progress import Progress
from cloudless.adapters.system import SystemClock
from cloudless.core.discovery.answers import Answerers, Voice, sort_answers
from cloudless.core.discovery.learned import bound
from cloudless.core.discovery.seeds import SeedKind, parse_seed
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.settings import CoordinatorSettings

MEMBER = "member"
# Who knows others already does not wait longer than this for DNS in one round.
SEEDS_WAIT_S = 0.5
Answers = Mapping[str, pb.GetFormationResponse]
Ask = Callable[[Iterable[str]], Awaitable[Answers]]
"""Asks all addresses what they are; silent ones are left out."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of asking: all `addresses`, the answers by address without our own, and who is behind them."""

    addresses: tuple[str, ...]
    answers: Answers
    who: Answerers

    @property
    def silent(self) -> list[str]:
        return [address for address in self.addresses if address not in self.answers and address not in self.who.own]

    @property
    def members(self) -> list[str]:
        """The addresses at which a member of the cluster answers that may be followed."""
        return [address for address in self.who.usable if self.answers[address].phase == MEMBER]


class Neighbours:
    """Finds the others for one node. `instance_id` tells this process from all others, whatever its address."""

    def __init__(self, settings: CoordinatorSettings, datadir: DataDir, ask: Ask, lookup: Lookup | None = None) -> None:
        self.instance_id = secrets.token_hex(8)
        self._settings, self._datadir, self._ask = settings, datadir, ask
        self._clock = SystemClock()
        seeds = [parse_seed(seed) for seed in settings.join_addresses]
        self._resolver = SeedResolver(seeds, lookup or NetworkLookup(settings.dns_servers), self._clock)
        self._learned = Learned.read(datadir.coordinators)
        self._noted = Progress.read(datadir.progress)
        self._own: frozenset[str] = frozenset({settings.advertise_address})
        self._refreshing: asyncio.Task[bool] | None = None
        self._said: set[str] = set()

    @property
    def any(self) -> bool:
        """Return whether there is anybody to ask, as far as one can tell without asking."""
        named = set(self._settings.join_addresses) - {self._settings.advertise_address}
        return bool(named or self._learned_addresses())

    @property
    def dynamic(self) -> bool:
        """Return whether a seed stands for whatever DNS says at the time."""
        return any(seed.kind in (SeedKind.DNS, SeedKind.SRV) for seed in self._resolver.seeds)

    def unresolved(self) -> list[str]:
        """Return the seeds that stand for nobody yet, each with the reason in words."""
        return [f"{seed} (cannot be looked up: {why})" for seed, why in sorted(self._resolver.unknown().items())]

    def remembered(self) -> list[str]:
        """Return the addresses of others that the data directory remembers of a cluster."""
        return [address for address in self._learned_addresses() if address not in self._own]

    async def addresses(self) -> list[str]:
        """Return the addresses at which others may be; those found to lead back to this process are left out."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._resolver.refresh(), name="seeds")
        await asyncio.wait({self._refreshing}, timeout=SEEDS_WAIT_S if self._known() else None)
        return self._known()

    async def ask(self) -> Round:
        """Ask everybody who they are and what they bring; say what is strange about it, once."""
        addresses = await self.addresses()
        answers = await self._ask(addresses)
        voices = {
            address: Voice(
                answer.node_id,
                answer.instance_id,
                answer.etcd_cluster_id if answer.phase == MEMBER else "",
                frozenset(answer.supersedes),
            )
            for address, answer in answers.items()
        }
        who = sort_answers(self.instance_id, Marker.read(self._datadir.marker).cluster_id, voices)
        for address in who.own:
            self._say_once(f"{address} leads back to this coordinator itself: it is not asked for anything")
        for cluster_id, strangers in who.foreign.items():
            self._say_once(f"{', '.join(strangers)} belong(s) to another cluster, {cluster_id}: not asked for anything")
        # Only for as long as it holds: behind a load balancer the next answer may be another's.
        others = {address: answer for address, answer in answers.items() if address not in who.own}
        return Round(tuple(addresses), others, who)

    def _known(self) -> list[str]:
        given = [endpoint.address for endpoint in self._resolver.current()]
        return [a for a in dict.fromkeys((*given, *self._learned_addresses())) if a not in self._own]

    def _learned_addresses(self) -> list[str]:
        known = bound(self._learned.coordinators, self._clock.wall_ms())
        # A directory that an earlier version left, or that was rebuilt, has only the other list.
        return [one.address for one in known if one.id != self._settings.node_id] or sorted(
            {*self._noted.addresses.values()}
        )

    def _say_once(self, words: str) -> None:
        if words not in self._said and len(self._said) < 100:
            self._said.add(words)
            logger.warning("{}", words)


def describe_failures(round: Round, refusals: Mapping[str, str], unresolved: list[str]) -> str:
    """Return in words why nobody let us in: what each said, who is silent, who is ourselves."""
    words = [f"{address}: {why}" for address, why in sorted(refusals.items())]
    for address, answer in sorted(round.answers.items()):
        if address in round.who.usable and answer.phase != MEMBER:
            words.append(f"{address}: {answer.node_id} belongs to no cluster itself")
    words.extend(f"{address}: no answer" for address in sorted(round.silent))
    words.extend(f"{address}: this coordinator itself" for address in round.who.own)
    words.extend(unresolved)
    return "; ".join(words) or "no other coordinator is known"
