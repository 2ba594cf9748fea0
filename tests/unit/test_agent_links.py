"""Which coordinators an agent dials, over time: seeds that change, coordinators that come, move and are removed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import cast

import pytest

from cloudless.agent.assignments import Gate
from cloudless.agent.config import AgentLimits
from cloudless.agent.dialling import StreamBroken
from cloudless.agent.journal import Head, Journal
from cloudless.agent.links import Links
from cloudless.agent.phonebook import Seeds
from cloudless.agent.reports import ReportBook
from cloudless.agent.session import EndKind, SessionParts
from cloudless.agent.tasks import TaskRunner
from cloudless.core.discovery.endpoints import Endpoint
from cloudless.core.discovery.learned import AGE_MAX_MS, Known
from cloudless.core.model import NodeInfo
from cloudless.errors import FormationRefused
from cloudless.rpc.v1 import agent_pb2 as pb
from cloudless.testing.fixed_seeds import FixedSeeds
from cloudless.testing.virtual_time import VirtualClock, eventually, running, virtually

CLOCK = VirtualClock()


class MemoryJournal:
    takes_s = 0.0

    async def save_head(self, head: Head) -> None:
        await asyncio.sleep(self.takes_s)


@dataclass
class World:
    """Coordinators by the address at which they answer, and what they tell. `dialled` is in order."""

    at: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    clusters: dict[str, str] = field(default_factory=dict)
    refusing: set[str] = field(default_factory=set)
    dialled: list[str] = field(default_factory=list)
    mute: set[str] = field(default_factory=set)
    new_period_s: float = 0.0
    streams: list[Stream] = field(default_factory=list)
    beats: list[tuple[float, str]] = field(default_factory=list)
    frozen: set[str] = field(default_factory=set)
    useless: set[str] = field(default_factory=set)
    period_s: float = 1.0

    def longest_gap_s(self, since_s: float, without: str) -> float:
        """Return the longest time in which no coordinator but one heard the agent's heart."""
        times = [since_s, *(at_s for at_s, where in self.beats if at_s >= since_s and where != without)]
        return max(after - before for before, after in itertools.pairwise([*times, CLOCK.monotonic_s()]))

    def dial(self, address: str) -> Stream:
        self.dialled.append(address)
        stream = Stream(self, address)
        self.streams.append(stream)
        return stream

    def tell(self, told: dict[str, str]) -> None:
        """Change the list of coordinators and send it to every agent."""
        self.told = told
        for stream in self.streams:
            stream.queue.put_nowait(pb.CoordinatorMessage(coordinators=pb.CoordinatorList(coordinators=self.known())))

    def known(self) -> list[pb.KnownCoordinator]:
        return [pb.KnownCoordinator(id=id, address=address) for id, address in self.told.items()]

    def die(self, address: str) -> None:
        del self.at[address]
        for stream in self.streams:
            if stream.address == address:
                stream.queue.put_nowait(None)


class Stream:
    """The agent's end of a session with whoever answers at an address."""

    def __init__(self, world: World, address: str) -> None:
        self._world, self.address = world, address
        self.queue: asyncio.Queue[pb.CoordinatorMessage | None] = asyncio.Queue()

    async def write(self, message: pb.AgentMessage) -> None:
        if self.address not in self._world.at:
            raise StreamBroken("nobody listens")
        if message.WhichOneof("body") == "hello":
            if self.address in self._world.refusing:
                raise StreamBroken("refused", FormationRefused("node n1 belongs to cluster one, this is other"))
            welcome = pb.Welcome(
                coordinator_id=self._world.at[self.address],
                cluster_id=self._world.clusters.get(self.address, "one"),
                heartbeat_period_s=self._world.period_s,
                coordinators=self._world.known(),
            )
            self.queue.put_nowait(pb.CoordinatorMessage(welcome=welcome))
        elif message.WhichOneof("body") == "heartbeat" and self.address not in self._world.mute:
            self._world.beats.append((CLOCK.monotonic_s(), self.address))
            if self.address in self._world.frozen:
                return
            ack = pb.HeartbeatAck(
                sequence=message.heartbeat.sequence,
                heartbeat_period_s=self._world.new_period_s,
                cut_off=self.address in self._world.useless,
            )
            self.queue.put_nowait(pb.CoordinatorMessage(heartbeat_ack=ack))

    async def read(self) -> pb.CoordinatorMessage:
        message = await self.queue.get()
        if message is None:
            raise StreamBroken("ended")
        return message

    def cancel(self) -> None:
        return

    async def close(self) -> None:
        self._world.streams.remove(self)

    async def knock(self) -> bool:
        return self.address in self._world.at


class ChangingSeeds:
    """Seeds whose name can be looked up from a moment on, and changes when told to."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self._endpoints: tuple[Endpoint, ...] = ()
        self._coming = endpoints
        self.looked = 0

    def become(self, *endpoints: Endpoint) -> None:
        self._coming = endpoints

    def current(self) -> tuple[Endpoint, ...]:
        return self._endpoints

    async def refresh(self) -> bool:
        self.looked += 1
        await asyncio.sleep(0.05)
        before, self._endpoints = self._endpoints, self._coming
        return before != self._endpoints

    def pause_s(self) -> float:
        return 5.0 if self.looked else 0.0

    def problems(self) -> Mapping[str, str]:
        return {}


def linking(
    world: World, seeds: Seeds, head: Head | None = None, dial: Callable[[str], Stream] | None = None, seed: int = 7
) -> tuple[Links, Gate]:
    gate = Gate(head or Head(), cast("Journal", MemoryJournal()), "n1")
    limits = AgentLimits()
    parts = SessionParts(
        info=lambda: NodeInfo(id="n1"), limits=limits, clock=CLOCK, random=Random(seed),
        dial=dial or world.dial, gate=gate, runner=cast("TaskRunner", None), reports=ReportBook(),
        on_round_trip=lambda seconds: None, on_refused=lambda kind: None, on_resent=lambda count: None,
    )  # fmt: skip
    return Links(seeds, parts), gate


def both_up(links: Links) -> bool:
    return links.primary is not None and links.count_warm() == 1


THREE = {"c1": "a:1", "c2": "b:1", "c3": "c:1"}
AT = {address: id for id, address in THREE.items()}


@virtually
async def test_an_agent_whose_seeds_are_all_gone_comes_back_by_what_it_learned() -> None:
    world = World(dict(AT), dict(THREE))
    links, gate = linking(world, FixedSeeds(["a:1"]))
    async with running(links.run()):
        await eventually(lambda: both_up(links))
    assert {one.id: one.address for one in gate.head.coordinators} == THREE
    world.die("a:1")
    again, _ = linking(world, FixedSeeds(["a:1", "gone:1"]), gate.head)
    async with running(again.run()):
        await eventually(lambda: both_up(again))


@virtually
async def test_what_was_learned_long_ago_is_not_dialled() -> None:
    world = World(dict(AT), dict(THREE))
    old = Head(cluster_id="one", coordinators=(Known("c2", "b:1", CLOCK.wall_ms() - AGE_MAX_MS - 1),))
    links, _ = linking(world, FixedSeeds(["gone:1"]), old)
    async with running(links.run()):
        await asyncio.sleep(60)
    assert set(world.dialled) == {"gone:1"}


@virtually
async def test_a_coordinator_that_joins_is_known_and_dialled_at_once_when_needed() -> None:
    world = World({"a:1": "c1"}, {"c1": "a:1"})
    links, _ = linking(world, FixedSeeds(["a:1"]))
    async with running(links.run()):
        await eventually(lambda: links.primary is not None)
        world.at["b:1"] = "c2"
        world.tell({"c1": "a:1", "c2": "b:1"})
        assert await eventually(lambda: both_up(links)) < 1.0


@virtually
async def test_one_that_moved_is_dialled_at_its_new_address_and_no_longer_at_the_old() -> None:
    world = World(dict(AT), dict(THREE))
    links, _ = linking(world, FixedSeeds(["a:1"]))
    async with running(links.run()):
        await eventually(lambda: both_up(links))
        world.die("c:1")
        world.at["z:1"] = "c3"
        world.tell(THREE | {"c3": "z:1"})
        world.die("b:1")
        await eventually(lambda: both_up(links))
        began = len(world.dialled)
        world.die("a:1")
        await asyncio.sleep(30)
        assert "c:1" not in world.dialled[began:]
        assert links.primary is not None
        assert links.primary.address == "z:1"


@virtually
async def test_a_removed_coordinator_is_dialled_no_more_even_where_a_seed_names_it() -> None:
    """By another name too: who answered there is remembered."""
    world = World({"a:1": "c1", "b:1": "c2", "seed:1": "c3"})
    links, _ = linking(world, FixedSeeds(["a:1", "seed:1"]))
    async with running(links.run()):
        await eventually(lambda: both_up(links))
        assert sorted(world.dialled) == ["a:1", "seed:1"]
        world.tell(THREE)
        await asyncio.sleep(1)
        world.tell({"c1": "a:1", "c2": "b:1"})
        world.die("seed:1")
        await eventually(lambda: world.dialled[-1] == "b:1")
        await eventually(lambda: both_up(links))
        world.die("b:1")
        began = len(world.dialled)
        await asyncio.sleep(120)
        assert set(world.dialled[began:]) == {"b:1"}


@virtually
async def test_an_agent_without_any_coordinator_tries_even_removed_ones() -> None:
    world = World(dict(AT), dict(THREE))
    links, _ = linking(world, FixedSeeds(["c:1"]))
    async with running(links.run()):
        await eventually(lambda: both_up(links))
        world.tell({"c1": "a:1", "c2": "b:1"})
        await asyncio.sleep(1)
        world.at["c:1"] = "c3"
        world.told = {"c3": "c:1"}
        for address in ("a:1", "b:1"):
            world.die(address)
        await eventually(lambda: links.primary is not None and links.primary.coordinator_id == "c3")


@virtually
async def test_names_are_looked_up_while_an_address_is_sought_and_not_while_both_sessions_stand() -> None:
    world = World(dict(AT), {})
    seeds = ChangingSeeds(Endpoint("a:1"), Endpoint("b:1"))
    links, _ = linking(world, seeds)
    async with running(links.run()):
        await eventually(lambda: both_up(links))
        looked = seeds.looked
        await asyncio.sleep(600)
        assert seeds.looked <= looked + 1
        seeds.become(Endpoint("c:1"))
        world.die("a:1")
        assert await eventually(lambda: both_up(links)) < 10


@virtually
async def test_a_name_that_cannot_be_looked_up_yet_is_looked_up_again_until_it_can() -> None:
    world = World(dict(AT), {})
    seeds = ChangingSeeds()
    links, _ = linking(world, seeds)
    async with running(links.run()):
        await asyncio.sleep(20)
        assert seeds.looked > 2
        assert not world.dialled
        seeds.become(Endpoint("a:1"), Endpoint("b:1"))
        await eventually(lambda: both_up(links))


@virtually
async def test_a_lookup_that_hangs_holds_up_no_dial_to_known_addresses_for_long() -> None:
    class Hanging(ChangingSeeds):
        async def refresh(self) -> bool:
            await asyncio.sleep(3600)
            return False

    world = World(dict(AT), dict(THREE))
    known = tuple(Known(id, address, CLOCK.wall_ms()) for id, address in THREE.items())
    links, _ = linking(world, Hanging(), Head(cluster_id="one", coordinators=known))
    async with running(links.run()):
        assert await eventually(lambda: both_up(links)) < AgentLimits().seeds_first_wait_s + 0.5


@virtually
async def test_better_priorities_are_dialled_first_and_the_others_when_those_fail() -> None:
    world = World(dict(AT), {})
    seeds = ChangingSeeds(Endpoint("c:1", 20), Endpoint("a:1", 10), Endpoint("b:1", 10))
    links, _ = linking(world, seeds)
    async with running(links.run()):
        await eventually(lambda: both_up(links))
        assert sorted(world.dialled) == ["a:1", "b:1"]
        world.die("a:1")
        await eventually(lambda: world.dialled[-1] == "c:1")
        await eventually(lambda: both_up(links))


@virtually
async def test_another_clusters_coordinators_are_refused_whoever_says_so_first() -> None:
    world = World(dict(AT), {}, clusters={"b:1": "other"}, refusing={"c:1"})
    links, gate = linking(world, FixedSeeds(["a:1", "b:1", "c:1"]), Head(cluster_id="one"))
    async with running(links.run()):
        await eventually(lambda: links.primary is not None and links.ends[EndKind.FOREIGN] >= 2)
        assert links.primary is not None
        assert links.primary.address == "a:1"
        began = len(world.dialled)
        await asyncio.sleep(10)
        assert len(world.dialled) - began <= 2, "strangers are left alone for a while"
    assert gate.head.cluster_id == "one"


@virtually
async def test_an_earlier_versions_list_without_ids_is_followed_too() -> None:
    world = World(dict(AT), {})
    links, gate = linking(world, FixedSeeds(["a:1"]))
    async with running(links.run()):
        await eventually(lambda: links.primary is not None)
        plain = pb.CoordinatorList(addresses=["a:1", "b:1"])
        for stream in world.streams:
            stream.queue.put_nowait(pb.CoordinatorMessage(coordinators=plain))
        await eventually(lambda: both_up(links))
    assert [one.address for one in gate.head.coordinators] == ["a:1", "b:1"]


@virtually
async def test_with_a_primary_a_dead_coordinator_is_tried_ever_more_seldom_and_found_soon_once_needed() -> None:
    """Thousands that knock every second would keep a slow one slow."""
    world = World({"a:1": "c1"}, {})
    links, _ = linking(world, FixedSeeds(["a:1", "b:1"]))
    async with running(links.run()):
        await eventually(lambda: links.primary is not None)
        await asyncio.sleep(60)
        began = len(world.dialled)
        await asyncio.sleep(600)
        assert 30 < len(world.dialled) - began < 200
        world.at["b:1"] = "c2"
        world.die("a:1")
        assert await eventually(lambda: links.primary is not None) < AgentLimits().retry_max_s + 0.5


@virtually
async def test_a_coordinator_that_is_slow_to_answer_is_given_more_time_with_each_try() -> None:
    world = World({"a:1": "c1"}, {})
    times: list[tuple[float, float]] = []

    class Slow(Stream):
        async def write(self, message: pb.AgentMessage) -> None:
            began_s = CLOCK.monotonic_s()
            try:
                await asyncio.sleep(3.0)
            finally:
                times.append((began_s, CLOCK.monotonic_s()))
            await super().write(message)

    def dial(address: str) -> Stream:
        world.streams.append(Slow(world, address))
        return world.streams[-1]

    links, _ = linking(world, FixedSeeds(["a:1"]), dial=dial)
    async with running(links.run()):
        await eventually(lambda: links.primary is not None)
    assert times[0][1] - times[0][0] < 2.0, "the first try is given up early"
    assert times[1][1] - times[1][0] >= 2.9, "the second is not"


@virtually
async def test_where_no_machine_takes_connections_every_try_is_as_short_as_the_first() -> None:
    """A host that was switched off must not keep a session's place for longer with each try."""
    times: list[tuple[float, float]] = []
    world = World()

    class Nowhere(Stream):
        async def write(self, message: pb.AgentMessage) -> None:
            began_s = CLOCK.monotonic_s()
            try:
                await asyncio.sleep(3600)
            finally:
                times.append((began_s, CLOCK.monotonic_s()))

        async def knock(self) -> bool:
            await asyncio.sleep(3600)
            return False

    def dial(address: str) -> Stream:
        world.streams.append(Nowhere(world, address))
        return world.streams[-1]

    links, _ = linking(world, FixedSeeds(["a:1"]), dial=dial)
    async with running(links.run()):
        await asyncio.sleep(300)
    limits = AgentLimits()
    assert all(ended - began <= limits.connect_timeout_s + 0.01 for began, ended in times)
    pauses = [began - ended for (_, ended), (began, _) in itertools.pairwise(times)]
    assert max(pauses) <= limits.retry_max_s + 0.01


@virtually
async def test_a_coordinator_cut_off_from_its_store_is_left_for_another_and_kept_where_there_is_none() -> None:
    world = World({"a:1": "c1"}, {})
    links, _ = linking(world, FixedSeeds(["a:1", "b:1"]))
    heard: list[float] = []
    links._parts = replace(links._parts, on_heard=lambda: heard.append(CLOCK.monotonic_s()))
    async with running(links.run()):
        await eventually(lambda: links.primary is not None)
        world.useless.add("a:1")
        await asyncio.sleep(5)
        told_s = CLOCK.monotonic_s()
        await asyncio.sleep(60)
        assert links.primary is not None, "there is no other: leaving it would gain nothing"
        assert not links.ends[EndKind.SHED]
        assert heard[-1] <= told_s, "it does not serve us: tasks that are to stop without a coordinator stop"
        world.useless.clear()
        await asyncio.sleep(2)
        assert heard[-1] > told_s
        world.useless.add("a:1")
        world.at["b:1"] = "c2"
        await eventually(lambda: links.primary is not None and links.primary.coordinator_id == "c2")
        assert links.ends[EndKind.SHED] == 1


@virtually
async def test_a_word_counts_from_when_it_came_though_a_slow_disk_holds_its_handling_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a task that is to stop without a coordinator would run longer than it may."""
    world = World({"a:1": "c1"}, {"c1": "a:1"})
    links, _ = linking(world, FixedSeeds(["a:1"]))
    heard: list[float] = []
    links._parts = replace(links._parts, on_heard=lambda: heard.append(CLOCK.monotonic_s()))
    async with running(links.run()):
        await eventually(lambda: links.primary is not None)
        monkeypatch.setattr(MemoryJournal, "takes_s", 20.0)
        told_s = CLOCK.monotonic_s()
        world.mute.add("a:1")
        world.tell({"c1": "a:1", "c2": "b:1"})
        await asyncio.sleep(25)
        assert told_s <= heard[-1] < told_s + 1


@virtually
async def test_with_both_cut_off_the_rest_is_asked_only_if_it_can_be_a_quorum() -> None:
    for count, finds in ((3, False), (4, False), (5, True)):
        all_of_them = {f"c{n}": f"host-{n}:1" for n in range(1, count + 1)}
        world = World({address: id for id, address in all_of_them.items()}, all_of_them)
        links, _ = linking(world, FixedSeeds(["host-1:1", "host-2:1"]))
        async with running(links.run()):
            await eventually(lambda links=links: both_up(links))  # type: ignore[misc]
            held = {one.address for one in links._open}
            world.useless |= held if finds else set(world.at)
            await asyncio.sleep(30)
            assert ({one.address for one in links._open} & held == set()) is finds
            assert links.ends[EndKind.SHED] == (2 if finds else 0)


@virtually
async def test_in_a_large_cluster_the_second_session_is_dialled_after_a_random_while_and_the_only_one_at_once() -> None:
    """A coordinator's end sends a part of thousands of agents to the others."""
    waits: list[float] = []
    for seed in range(40):
        world = World(dict(AT), dict(THREE), period_s=6.0)
        links, _ = linking(world, FixedSeeds(["a:1"]), seed=seed)
        async with running(links.run()):

            async def until(ends: int, up: Callable[[Links], bool], links: Links = links) -> float:
                return await eventually(lambda: links.ends[EndKind.BROKEN] == ends and up(links))

            await until(0, both_up)
            world.die(next(one.address for one in links._open if one is not links.primary))
            waits.append(await until(1, both_up))
            for stream in list(world.streams):
                stream.queue.put_nowait(None)
            assert await until(3, lambda links: links.primary is not None) < 1.0
    spread_s = AgentLimits().second_spread * (6.0 - AgentLimits().heartbeat_period_default_s)
    assert max(waits) <= spread_s + 0.5
    assert min(waits) < spread_s / 4
    assert max(waits) > spread_s / 2


@virtually
async def test_a_silent_primary_is_held_on_to_while_there_is_no_other_and_left_at_once_when_there_is() -> None:
    """When a coordinator is slow because of its many agents, all of them coming again would keep it so."""
    world = World({"a:1": "c1"}, {})
    links, _ = linking(world, FixedSeeds(["a:1", "b:1"]))
    async with running(links.run()):
        await eventually(lambda: links.primary is not None)
        world.mute.add("a:1")
        await asyncio.sleep(8)
        assert links.primary is not None
        assert not links.ends[EndKind.SILENT]
        world.at["b:1"] = "c2"
        await eventually(lambda: links.primary is not None and links.primary.coordinator_id == "c2")
        assert links.ends[EndKind.SILENT] == 1


@virtually
async def test_one_that_answers_too_late_is_tried_ever_more_seldom_even_by_who_has_nobody() -> None:
    dialled: list[float] = []

    class Stuck(Stream):
        async def write(self, message: pb.AgentMessage) -> None:
            await asyncio.sleep(3600)

    world = World({"a:1": "c1"})

    def dial(address: str) -> Stream:
        dialled.append(CLOCK.monotonic_s())
        world.streams.append(Stuck(world, address))
        return world.streams[-1]

    links, _ = linking(world, FixedSeeds(["a:1"]), dial=dial)
    async with running(links.run()):
        await asyncio.sleep(120)
        began = len(dialled)
        await asyncio.sleep(600)
        limits = AgentLimits()
        longest_s = limits.retry_late_max_s + limits.connect_timeout_max_s
        assert 600 / longest_s <= len(dialled) - began <= 600 / limits.connect_timeout_max_s


@virtually
async def test_an_agent_beats_as_often_as_it_was_told_last() -> None:
    world = World({"a:1": "c1"}, {})
    links, _ = linking(world, FixedSeeds(["a:1"]))
    async with running(links.run()):
        await eventually(lambda: len(world.beats) > 3)
        world.new_period_s = 5.0
        await asyncio.sleep(6)
        began = len(world.beats)
        await asyncio.sleep(50)
        assert 9 <= len(world.beats) - began <= 14
        assert links.primary is not None


@pytest.mark.parametrize("how", ["cut off", "frozen"])
@virtually
async def test_no_heartbeat_is_missed_when_one_coordinator_is_lost(how: str) -> None:
    """Whichever of the two it is: the others go on hearing this agent, and soon two of them do again."""
    for number in range(2):
        world = World(dict(AT), dict(THREE))
        links, _ = linking(world, FixedSeeds(list(AT)))
        async with running(links.run()):
            await eventually(lambda links=links: both_up(links))  # type: ignore[misc]
            await asyncio.sleep(5)
            first, second = (stream.address for stream in world.streams)
            victim = (first, second)[number]
            began_s = CLOCK.monotonic_s()
            if how == "cut off":
                world.die(victim)
            else:
                world.frozen.add(victim)
            await asyncio.sleep(30)
            assert world.longest_gap_s(began_s, without=victim) <= 1.0, "the period that the coordinators said"
            late_s = began_s + 6
            assert len({where for at_s, where in world.beats if at_s > late_s} - {victim}) == 2


@virtually
async def test_agents_that_came_together_do_not_go_on_beating_in_step() -> None:
    worlds = [World(dict(AT), dict(THREE)) for _ in range(10)]
    links = [linking(world, FixedSeeds(list(AT)), seed=number)[0] for number, world in enumerate(worlds)]
    async with contextlib.AsyncExitStack() as stack:
        for one in links:
            await stack.enter_async_context(running(one.run()))
        await asyncio.sleep(60)
        last_s = [max(at_s for at_s, _ in world.beats) for world in worlds]
    assert max(last_s) - min(last_s) > 0.3
    assert all(at_s < 0.1 for world in worlds for at_s in [world.beats[0][0] - min(w.beats[0][0] for w in worlds)])
